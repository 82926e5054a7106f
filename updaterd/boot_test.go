// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/config"
	"github.com/updaterd/updaterd/updaterd/internal/install"
)

// switched is a device of which slot a is primary, while two switches are at b:
// the first of two copies has no header, and an entry leads to the second half.
func switched(t *testing.T) (dir string, c *config.Config) {
	t.Helper()
	dir, c = fitting(t)
	for _, slot := range []string{"a", "b"} {
		put(t, dir, "boot_"+slot, bytes.Repeat([]byte(slot), 4096))
		c.Slots["boot."+slot] = config.Slot{Device: filepath.Join(dir, "boot_"+slot), Type: config.TypeFallbackCopy}
	}
	disk := make([]byte, 64<<10)
	binary.LittleEndian.PutUint32(disk[446+8:], 64)
	binary.LittleEndian.PutUint32(disk[446+12:], 32)
	disk[510], disk[511] = 0x55, 0xaa
	copy(disk[16<<10:], "first")
	copy(disk[32<<10:], "second")
	put(t, dir, "disk", disk)
	for slot, offset := range map[string]config.Size{"a": 16 << 10, "b": 32 << 10} {
		c.Slots["spl."+slot] = config.Slot{Device: filepath.Join(dir, "disk"), Type: config.TypeMBRSwitch, Partition: 1, Offset: offset, Size: 16 << 10}
	}
	s, err := openSwitch(c, "boot")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Select("b"); err != nil {
		t.Fatal(err)
	}
	return dir, c
}

// The check says what is wrong, and the start of the daemon mends it.
func TestSwitchesFollowTheEnvironment(t *testing.T) {
	dir, c := switched(t)
	for _, class := range []string{"boot", "spl"} {
		if found, err := checkSwitch(c, class); err == nil || !strings.Contains(err.Error(), class+".b is selected, although slot a is primary") {
			t.Errorf("%s: %q, %v", class, found, err)
		}
	}
	before, err := os.ReadFile(filepath.Join(dir, "boot_a"))
	if err != nil || before[0] != 0 {
		t.Fatalf("copy a begins with %q, %v", before[:4], err)
	}
	control, err := openBoot(c, "")
	if err != nil {
		t.Fatal(err)
	}
	if status, err := control.Status(); err != nil || len(status.Problems) != 2 {
		t.Errorf("Status = %+v, %v; want a problem for each switch", status, err)
	}
	if err := control.Settle(); err != nil {
		t.Fatal(err)
	}
	for _, class := range []string{"boot", "spl"} {
		if found, err := checkSwitch(c, class); err != nil || found != class+".a is selected" {
			t.Errorf("%s: %q, %v", class, found, err)
		}
	}
	if after, err := os.ReadFile(filepath.Join(dir, "boot_a")); err != nil || !bytes.Equal(after, bytes.Repeat([]byte("a"), 4096)) {
		t.Errorf("copy a is not what it was: %v", err)
	}
}

// The engine takes what the configuration says, and knows which slot's header
// it must not write.
func TestEngineKnowsTheSlots(t *testing.T) {
	dir, c := switched(t)
	parts, err := regions(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := install.New(install.Options{
		Compatible: "x", Slots: devices(c), Regions: parts, Headers: headers(c), Dir: filepath.Join(dir, "downloads"),
		Booted: func() (bootctl.Slot, error) { return "a", nil },
		Policy: func() (*sign.Policy, error) { return nil, nil },
		Open:   func(string) (install.Remote, error) { return nil, nil },
	}); err != nil {
		t.Fatal(err)
	}
	if h := headers(c); len(h) != 1 || h[filepath.Join(dir, "boot_a")] == nil {
		t.Errorf("headers are kept for %v, want boot_a alone", h)
	}
	want := install.Region{Device: filepath.Join(dir, "disk"), Offset: 32 << 10, Size: 16 << 10}
	if len(parts) != 2 || parts[devices(c)["spl"]["b"]] != want {
		t.Errorf("regions = %+v", parts)
	}
}

// A slot ends where a copy of the environment begins in its device: neither an
// image nor what is carried over is to replace it.
func TestSlotsEndBeforeTheEnvironment(t *testing.T) {
	dir, c := switched(t)
	env, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil {
		t.Fatal(err)
	}
	for i, slot := range []string{"a", "b"} {
		put(t, dir, "boot_"+slot, append(bytes.Repeat([]byte(slot), 4096), env[i*0x1000:][:0x1000]...))
	}
	put(t, dir, "fw_env.config", fmt.Appendf(nil, "%s/boot_a 0x1000 0x1000\n%s/boot_b 0x1000 0x1000\n", dir, dir))
	parts, err := regions(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range []bootctl.Slot{"a", "b"} {
		name := devices(c)["boot"][slot]
		if want := (install.Region{Device: name, Size: 4096}); parts[name] != want {
			t.Errorf("boot.%s: %+v, want %+v", slot, parts[name], want)
		}
		if found, err := checkSlot(c, "boot", slot); err != nil {
			t.Errorf("boot.%s: %q, %v", slot, found, err)
		}
	}
	for name, text := range map[string]string{"begins with it": "boot_a 0x0 0x1000", "half of a region": "disk 0x7fff 0x1000"} {
		put(t, dir, "fw_env.config", fmt.Appendf(nil, "%s/%s\n", dir, text))
		if parts, err := regions(c); err == nil || !strings.Contains(err.Error(), "boot environment") {
			t.Errorf("%s: %+v, %v", name, parts, err)
		}
	}
}
