// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/qemu/vm"
)

// TestEMMCBoot installs a bootloader to a boot partition of an eMMC and selects
// it, through the real kernel. QEMU's eMMC forgets the selection with a reset, so the
// trial itself is not part of it.
func TestEMMCBoot(t *testing.T) {
	if why := vm.NoEMMC(t.Context()); why != "" {
		t.Skip("this QEMU has no eMMC, 11.1 has: " + why)
	}
	t.Parallel()
	w := workshopFor(t)
	system := w.image(t, device.System{Flavour: assets.Small, Packages: assets.Base, Version: "1.0", Health: healthOfSmall,
		Download: `store_budget = "48MiB"`, Slots: device.EMMCSlots})
	loader, err := w.Loader(t.Context(), assets.Updated)
	if err != nil {
		t.Fatal(err)
	}
	server := w.serve(t, w.bundles)
	name := w.bundle(t, device.Release{Version: "1.1", Sequence: 11, Image: system, Loader: loader})

	dev := w.newDevice(t, assets.Disk{Flavour: assets.Small, SlotA: system, EnvID: "factory"})
	dev.EMMC = filepath.Join(t.TempDir(), "emmc.img")
	old := bytes.Repeat([]byte("bootloader 1.0. "), vm.EMMCBoot/16)
	if err := os.WriteFile(dev.EMMC, append(old, make([]byte, vm.EMMCBoot+16<<20)...), 0o644); err != nil {
		t.Fatal(err)
	}
	boot(t, dev)
	selected := func(slot string) {
		t.Helper()
		out, _ := dev.Run(t.Context(), "sh", "-c", "updaterd check-config; true")
		if !strings.Contains(out, "switch of class bootloader: bootloader."+slot+" is selected") {
			t.Errorf("slot %s of the eMMC is not selected:\n%s", slot, out)
		}
	}
	protected := func() {
		t.Helper()
		if out := run(t, dev, "cat", "/sys/block/mmcblk1boot0/force_ro", "/sys/block/mmcblk1boot1/force_ro"); strings.Join(strings.Fields(out), "") != "11" {
			t.Errorf("force_ro is %q", out)
		}
	}
	selected("a")
	protected()

	run(t, dev, "updaterctl", "install", "--no-activate", url(server, name))
	selected("a")
	protected()
	run(t, dev, "updaterctl", "activate")
	selected("b")
	run(t, dev, "sync")
	image, err := os.ReadFile(dev.EMMC)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(loader)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(image[:vm.EMMCBoot], old) || !bytes.HasPrefix(image[vm.EMMCBoot:], want) {
		t.Error("boot0 was changed, or boot1 is not the new bootloader")
	}
	run(t, dev, "updaterctl", "cancel")
	selected("a")
	protected()
}
