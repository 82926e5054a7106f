// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/updaterd/client"
)

// The board with a fixed first stage, which counts, and a second stage in slots
// of class bootloader.
type staged struct {
	*workshop
	v1, v2   string // root file systems
	old, new string // second stages
}

func stagedSystems(t *testing.T) *staged {
	t.Helper()
	w := workshopFor(t)
	s := &staged{workshop: w}
	system := func(version string, p assets.Packages) (string, string) {
		loader, err := w.Loader(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		return w.image(t, device.System{Flavour: assets.Small, Packages: p, Version: version, Health: healthOfSmall,
			Download: `store_budget = "48MiB"`, Slots: device.LoaderSlots}), loader
	}
	s.v1, s.old = system("1.0", assets.Base)
	s.v2, s.new = system("2.0", assets.Updated)
	return s
}

func (s *staged) disk() assets.Disk {
	return assets.Disk{Flavour: assets.Small, SlotA: s.v1, LoaderA: s.old, LoaderB: s.old, EnvID: "factory"}
}

// Of what the stages say on the console, in this order, since offset from.
func expectConsole(t *testing.T, d *device.Device, from int, want ...string) int {
	t.Helper()
	text := d.VM.Console.Text()
	for _, w := range want {
		at := strings.Index(text[from:], w)
		if at < 0 {
			t.Errorf("the console does not say %q; it says:\n%s", w, text[max(from, len(text)-6000):])
			return from
		}
		from += at + len(w)
	}
	return from
}

const (
	says1 = "U-Boot 2023.01-bootloader-1.0"
	says2 = "U-Boot 2023.01-bootloader-2.0"
)

// TestBootloaderUpdate: root file system and bootloader go into trial together
// and are confirmed together; then a bundle with a root file system alone takes
// the new bootloader along.
func TestBootloaderUpdate(t *testing.T) {
	t.Parallel()
	s := stagedSystems(t)
	both := s.bundle(t, device.Release{Version: "2.0", Sequence: 20, Image: s.v2, From: []string{s.v1}, Loader: s.new})
	alone := s.bundle(t, device.Release{Version: "1.0", Sequence: 30, Image: s.v1, From: []string{s.v2}})
	server := s.serve(t, s.bundles)
	dev := s.newDevice(t, s.disk())
	boot(t, dev)
	at := expectConsole(t, dev, 0, "starting the bootloader of slot a", says1, "starting slot a")

	installAndReboot(t, dev, url(server, both))
	if err := dev.AwaitReset(within(t, 3*time.Minute), 1); err != nil {
		t.Fatal(err)
	}
	st := settled(t, dev, time.Minute)
	expectSlot(t, st, "b", "2.0", client.Success, "confirmed")
	at = expectConsole(t, dev, at, "starting the bootloader of slot b, bootcount 1 of 3, trial 1", says2, "starting slot b")
	if got := st.Slots["bootloader.b"].Version; got != "2.0" {
		t.Errorf("bootloader.b is of version %q, want 2.0", got)
	}
	if out := run(t, dev, "updaterctl", "status"); !strings.Contains(out, "slot bootloader.b") {
		t.Errorf("status does not tell the bootloader:\n%s", out)
	}
	expectEnv(t, dev, map[string]string{"boot_slot": "b", "upgrade_available": "0", "bootcount": "0"})

	installAndReboot(t, dev, url(server, alone))
	if err := dev.AwaitReset(within(t, 3*time.Minute), 2); err != nil {
		t.Fatal(err)
	}
	st = settled(t, dev, time.Minute)
	expectSlot(t, st, "a", "1.0", client.Success, "confirmed")
	expectConsole(t, dev, at, "starting the bootloader of slot a", says2, "starting slot a")
	if got := st.Slots["bootloader.a"].Version; got != "2.0" {
		t.Errorf("bootloader.a is of version %q, want that of the release it came with, 2.0", got)
	}
}

// TestBadBootloader: a second stage that is intact but does not run falls back
// by the boot counter, one that is not intact at once, and in both cases the
// root file system falls back with it.
func TestBadBootloader(t *testing.T) {
	t.Parallel()
	s := stagedSystems(t)
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.bin")
	if err := os.WriteFile(garbage, make([]byte, 64<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	dead, torn := filepath.Join(dir, "dead", "loader.itb"), filepath.Join(dir, "torn", "loader.itb")
	for _, path := range []string{dead, torn} {
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := assets.WriteFIT(t.Context(), garbage, dead); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(s.new)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(whole)
	broken[len(broken)/2] ^= 1
	if err := os.WriteFile(torn, broken, 0o644); err != nil {
		t.Fatal(err)
	}
	one := s.bundle(t, device.Release{Version: "2.1", Sequence: 21, Image: s.v2, Loader: dead})
	two := s.bundle(t, device.Release{Version: "2.2", Sequence: 22, Image: s.v2, Loader: torn})
	server := s.serve(t, s.bundles)
	dev := s.newDevice(t, s.disk())
	boot(t, dev)
	at := expectConsole(t, dev, 0, says1)

	installAndReboot(t, dev, url(server, one))
	// Three starts that end in a reset each, then the fall-back.
	if err := dev.AwaitReset(within(t, 4*time.Minute), 4); err != nil {
		t.Fatal(err)
	}
	expectSlot(t, settled(t, dev, time.Minute), "a", "1.0", client.RolledBack, "the bootloader fell back after 3 tries")
	at = expectConsole(t, dev, at, "starting the bootloader of slot b, bootcount 1", "bootcount 3 of 3", "slot b failed, falling back to slot a",
		"starting the bootloader of slot a", says1, "starting slot a")
	expectEnv(t, dev, map[string]string{"boot_slot": "a", "upgrade_available": "0", "boot_bad": "b"})

	installAndReboot(t, dev, url(server, two))
	if err := dev.AwaitReset(within(t, 3*time.Minute), 5); err != nil {
		t.Fatal(err)
	}
	expectSlot(t, settled(t, dev, time.Minute), "a", "1.0", client.RolledBack, "could not load")
	expectConsole(t, dev, at, "the bootloader of slot b is not intact", "starting the bootloader of slot a", says1, "starting slot a")
	expectEnv(t, dev, map[string]string{"boot_slot": "a", "upgrade_available": "0", "boot_bad": "b"})
}
