// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
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
	if _, err := install.New(install.Options{
		Compatible: "x", Slots: devices(c), Regions: regions(c), Headers: headers(c), Dir: filepath.Join(dir, "downloads"),
		Booted:  func() (bootctl.Slot, error) { return "a", nil },
		Keyring: func() (*sign.Keyring, error) { return nil, nil },
		Open:    func(string) (install.Remote, error) { return nil, nil },
	}); err != nil {
		t.Fatal(err)
	}
	if h := headers(c); len(h) != 1 || h[filepath.Join(dir, "boot_a")] == nil {
		t.Errorf("headers are kept for %v, want boot_a alone", h)
	}
	want := install.Region{Device: filepath.Join(dir, "disk"), Offset: 32 << 10, Size: 16 << 10}
	if r := regions(c); len(r) != 2 || r[devices(c)["spl"]["b"]] != want {
		t.Errorf("regions = %+v", r)
	}
}
