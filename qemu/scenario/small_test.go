// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
)

const healthOfSmall = `min_uptime = "0s"
deadline = "2m"`

// small is two versions of the small system, and a bundle for each: v2's has a
// delta from v1 and the other way round.
type small struct {
	*workshop
	v1, v2   string // images
	one, two string // bundles
}

func smallSystems(t *testing.T) *small {
	t.Helper()
	w := workshopFor(t)
	s := &small{workshop: w}
	image := func(version string, packages assets.Packages) string {
		return w.image(t, device.System{Flavour: assets.Small, Packages: packages, Version: version, Health: healthOfSmall, Download: `store_budget = "48MiB"`})
	}
	s.v1, s.v2 = image("1.0", assets.Base), image("2.0", assets.Updated)
	s.one = w.bundle(t, device.Release{Version: "1.0", Sequence: 10, Image: s.v1, From: []string{s.v2}})
	s.two = w.bundle(t, device.Release{Version: "2.0", Sequence: 10, Image: s.v2, From: []string{s.v1}})
	return s
}

func (s *small) device(t *testing.T) *device.Device {
	t.Helper()
	return s.newDevice(t, assets.Disk{Flavour: assets.Small, SlotA: s.v1, EnvID: "factory"})
}

// slotRange is where a slot lies on the card.
func slotRange(t *testing.T, slot string) (from, to int64) {
	t.Helper()
	layout, err := (&assets.Disk{Flavour: assets.Small}).Layout()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range layout.Parts {
		if p.Name == "rootfs_"+slot {
			return p.Start, p.Start + p.Size
		}
	}
	t.Fatalf("no slot %s", slot)
	return 0, 0
}

func readCard(t *testing.T, d *device.Device, from, to int64) []byte {
	t.Helper()
	b := make([]byte, to-from)
	if _, err := d.Disk.ReadAt(b, from); err != nil {
		t.Fatal(err)
	}
	return b
}

// alter writes a changed copy of a bundle under another name.
func (s *small) alter(t *testing.T, dir, name, as string, change func([]byte) []byte) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.bundles, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, as), change(b), 0o644); err != nil {
		t.Fatal(err)
	}
	return as
}

// TestFailingMedium: what the card returns is not what was written, and the
// kernel's cache does not know.
func TestFailingMedium(t *testing.T) {
	t.Parallel()
	s := smallSystems(t)
	server := s.serve(t, s.bundles)
	dev := s.device(t)
	dev.Watched = true
	boot(t, dev)
	from, _ := slotRange(t, "b")
	dev.Disk.Spoil(from + 7<<20 + 512)
	out := refused(t, dev, exitFailed, "updaterctl", "install", "--reboot", url(server, s.two))
	if !strings.Contains(out, "read back") {
		t.Errorf("a card that loses what was written was reported as: %s", out)
	}
	st := settled(t, dev, time.Minute)
	if st.BootedSlot != "a" || st.PrimarySlot != "a" {
		t.Errorf("booted %s, primary %s; want a", st.BootedSlot, st.PrimarySlot)
	}
	expectEnv(t, dev, map[string]string{"boot_slot": "a", "upgrade_available": "0", "boot_bad": "b"})
}
