// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl/emmc"
)

// A boot partition of an eMMC is writable only from the first write to the end.
func TestForceRO(t *testing.T) {
	sys := t.TempDir()
	dir := filepath.Join(sys, "dev/block/179:8")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	flag := write(t, filepath.Join(dir, "force_ro"), []byte("1\n"))
	now := func() string { return strings.TrimSpace(string(must(os.ReadFile(flag)))) }

	path := write(t, filepath.Join(t.TempDir(), "slot"), make([]byte, 8192))
	d := must(openSlotFile(path, true))
	d.guard = emmc.GuardOf(sys, unix.Mkdev(179, 8))
	if _, err := d.ReadAt(make([]byte, 10), 0); err != nil || now() != "1" {
		t.Errorf("after reading: %v, force_ro = %s", err, now())
	}
	for range 2 {
		if _, err := d.WriteAt([]byte("x"), 0); err != nil || now() != "0" {
			t.Errorf("after writing: %v, force_ro = %s", err, now())
		}
	}
	if err := d.Close(); err != nil || now() != "1" {
		t.Errorf("after closing: %v, force_ro = %s", err, now())
	}

	// Who only inspects changes nothing.
	d = must(openSlotFile(path, true))
	d.guard = emmc.GuardOf(sys, unix.Mkdev(179, 8))
	write(t, flag, []byte("untouched"))
	if d.Close(); now() != "untouched" {
		t.Errorf("closing wrote %q", now())
	}

	// Neither a guard that somebody else has lifted is changed, nor a device that has none.
	write(t, flag, []byte("0\n"))
	for _, device := range []uint64{unix.Mkdev(179, 8), unix.Mkdev(8, 0)} {
		d = must(openSlotFile(path, true))
		d.guard = emmc.GuardOf(sys, device)
		if _, err := d.WriteAt([]byte("x"), 0); err != nil {
			t.Error(err)
		}
		if d.Close(); now() != "0" {
			t.Errorf("closing a device that may be written set force_ro = %s", now())
		}
	}
	d = must(openSlotFile(path, true))
	d.guard = emmc.GuardOf(sys, unix.Mkdev(179, 8))
	must(0, os.Remove(flag))
	if _, err := d.WriteAt([]byte("y"), 0); err == nil || string(must(os.ReadFile(path))[:1]) != "x" {
		t.Errorf("a device that cannot be made writable was written: %v", err)
	}
	d.Close()
}
