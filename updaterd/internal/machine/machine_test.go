// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cmdline"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
)

func at(t *testing.T, flags map[string]string, root map[bootctl.Slot]string) *Machine {
	t.Helper()
	m, err := New(t.TempDir(), root, uboot.Scheme{Name: uboot.Bootcount})
	if err != nil {
		t.Fatal(err)
	}
	m.line = &cmdline.CmdLine{AsMap: flags}
	return m
}

func TestBootedIsUnprovenUnlessTheMountConfirmsIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "not-a-device")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	order := uboot.Scheme{Name: uboot.Bootorder}
	for _, c := range []struct {
		name, slot, want string
		root             map[bootctl.Slot]string
		scheme           uboot.Scheme
		rauc             string
	}{
		{name: "no slot", want: "no updaterd.slot"},
		{name: "unknown slot", slot: "c", want: "neither a nor b"},
		{name: "no device", slot: "a", want: "no device", root: map[bootctl.Slot]string{"b": file}},
		{name: "missing device", slot: "a", want: "look at the device", root: map[bootctl.Slot]string{"a": file + "x"}},
		{name: "not a block device", slot: "a", want: "is not mounted from", root: map[bootctl.Slot]string{"a": file}},
		{name: "same numbers, but a character device", slot: "b", want: "is not mounted from", root: map[bootctl.Slot]string{"b": "/dev/null"}},
		{name: "the other scheme's flag", rauc: "A", want: "no updaterd.slot"},
		{name: "RAUC's flag is checked as well", rauc: "A", want: "says slot a, but / is not mounted from", root: map[bootctl.Slot]string{"a": file}, scheme: order},
		{name: "another name", rauc: "system0", want: `neither "A" nor "B"`, scheme: order},
	} {
		t.Run(c.name, func(t *testing.T) {
			flags := map[string]string{}
			if c.slot != "" {
				flags["updaterd.slot"] = c.slot
			}
			if c.rauc != "" {
				flags["rauc.slot"] = c.rauc
			}
			m := at(t, flags, c.root)
			if c.scheme.Name != "" {
				m.scheme = c.scheme
			}
			slot, err := m.Booted()
			if slot != "" || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Booted() = %q, %v; want an error with %q", slot, err, c.want)
			}
		})
	}
}

func TestID(t *testing.T) {
	m := at(t, nil, nil)
	for _, c := range []struct{ text, want, fail string }{
		{"0123456789abcdef0123456789abcdef\n", "0123456789abcdef0123456789abcdef", ""},
		{"10000000a1b2c3d4\x00", "10000000a1b2c3d4", ""}, // as the device tree has it
		{" 00:11:22:33:44:55 \nmore", "00:11:22:33:44:55", ""},
		{"uninitialized\n", "", ""},
		{"", "", ""},
		{"two words\n", "", "two words"},
		{strings.Repeat("x", 300), "", "xxxx"},
	} {
		if err := os.WriteFile(filepath.Join(m.dir, "id"), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		id, err := m.ID("/id")
		if id != c.want || (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail) {
			t.Errorf("ID() of %q = %q, %v; want %q", c.text, id, err, c.want)
		}
	}
	for _, path := range []string{"", "/none"} {
		if id, err := m.ID(path); id != "" || err != nil {
			t.Errorf("ID(%q) = %q, %v", path, id, err)
		}
	}
}

func TestRelease(t *testing.T) {
	m := at(t, map[string]string{"updaterd.env_id": "77"}, nil)
	path := filepath.Join(m.dir, "etc/os-release")
	if _, err := m.Release(); err == nil {
		t.Fatal("read an os-release that is not there")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	built := time.Unix(1_750_000_000, 0)
	if err := os.WriteFile(path, []byte("ID=debian\nBUILD_ID=\"v1-7\"\n# VERSION_ID=9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, built, built); err != nil {
		t.Fatal(err)
	}
	r, err := m.Release()
	if err != nil || r.BuildID != "v1-7" || r.Version != "v1-7" || !r.Built.Equal(built) {
		t.Fatalf("Release() = %+v, %v", r, err)
	}
	for _, c := range []struct{ text, want string }{
		{"VERSION_ID=12\nIMAGE_VERSION=2.0\nBUILD_ID=x\n", "2.0"}, {"BUILD_ID=x\nVERSION_ID=12\n", "12"}, {"ID=y\n", ""},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := m.Release(); err != nil || r.Version != c.want {
			t.Errorf("Release() of %q: version %q, %v; want %q", c.text, r.Version, err, c.want)
		}
	}
	if err := os.WriteFile(path, []byte("UPDATERD_FLOOR=18446744073709551615\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := m.Release(); err != nil || r.Floor != 1<<64-1 {
		t.Errorf("floor %d, %v", r.Floor, err)
	}
	if err := os.WriteFile(path, []byte("UPDATERD_FLOOR=-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Release(); err == nil {
		t.Error("a floor below zero was read")
	}
	if Uptime() <= 0 {
		t.Errorf("Uptime() = %v", Uptime())
	}
	if m.EnvID() != "77" || m.BootID() == "" {
		t.Fatalf("EnvID() = %q, BootID() = %q", m.EnvID(), m.BootID())
	}
	if err := os.WriteFile(path, make([]byte, maxOSRelease+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Release(); err == nil {
		t.Fatal("read an os-release without bound")
	}
}

// TestSlotBelowAMapping: the file system that dm-verity shows is the slot's, also
// through another layer; that of another device is not, and a circle ends.
func TestSlotBelowAMapping(t *testing.T) {
	m := &Machine{sysfs: t.TempDir()}
	for _, layer := range []struct{ device, name, below string }{
		{"253:1", "dm-0", "253:0"}, {"253:0", "mmcblk0p2", "179:2"}, {"253:0", "mmcblk0p4", "179:4"},
		{"253:8", "dm-9", "253:9"}, {"253:9", "dm-8", "253:8"},
	} {
		dir := filepath.Join(m.sysfs, "dev/block", layer.device, "slaves", layer.name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "dev"), []byte(layer.below+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		device, slot string
		want         bool
	}{{"253:0", "179:2", true}, {"253:1", "179:2", true}, {"253:1", "179:3", false}, {"179:2", "179:3", false}, {"253:8", "179:2", false}} {
		if got := m.above(c.device, c.slot, maxLayers); got != c.want {
			t.Errorf("above(%s, %s) = %v", c.device, c.slot, got)
		}
	}
}
