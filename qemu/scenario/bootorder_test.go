// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"testing"
	"time"

	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/qemu/nbd"
	"github.com/updaterd/updaterd/qemu/uboot"
	"github.com/updaterd/updaterd/updaterd/client"
)

// TestBootOrder takes over a device that was fielded with RAUC: its bootloader
// and the variables on its card stay as they are.
func TestBootOrder(t *testing.T) {
	t.Parallel()
	w := workshopFor(t)
	image := func(version string, packages assets.Packages, broken assets.Broken) string {
		return w.image(t, device.System{Flavour: assets.Small, Packages: packages, Version: version, Broken: broken,
			Boot: `scheme = "bootorder"`, Health: healthOfSmall, Download: `store_budget = "48MiB"`})
	}
	v1, v2 := image("1.0", assets.Base, ""), image("2.0", assets.Updated, "")
	v3 := image("3.0", assets.Base, assets.BrokenInit)
	two := w.bundle(t, device.Release{Version: "2.0", Sequence: 10, Image: v2, From: []string{v1}})
	three := w.bundle(t, device.Release{Version: "3.0", Sequence: 10, Image: v3, From: []string{v2}})
	server := w.serve(t, w.bundles)
	factory, err := uboot.BootOrder()
	if err != nil {
		t.Fatal(err)
	}
	dev := w.newDevice(t, assets.Disk{Flavour: assets.Small, SlotA: v1, Factory: factory})
	dev.Watched = true

	boot(t, dev)
	if out := refused(t, dev, exitRefused, "updaterctl", "install", url(server, two)); !containsAll(out, "not proven", "reboot once") {
		t.Errorf("installing before a reboot has proven the environment was refused with: %s", out)
	}
	expectEnv(t, dev, map[string]string{"BOOT_ORDER": "A B", "BOOT_A_LEFT": "3", "upgrade_available": "", "boot_slot": ""})

	dev.PowerOff()
	boot(t, dev)
	if s := status(t, dev); s.BootedSlot != "a" || s.PrimarySlot != "a" || len(s.Problems) > 0 {
		t.Fatalf("after one reboot: booted %s, primary %s, problems %v", s.BootedSlot, s.PrimarySlot, s.Problems)
	}
	// Starting the daemon anew wipes nothing of the proof out.
	run(t, dev, "sh", "-c", "kill $(pidof updaterd)")
	if err := dev.Up(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}

	run(t, dev, "updaterd", "check-config")

	// The plug is pulled while the boot script saves that the trial has one start
	// fewer. Before that, the environment was written four times: twice to mark the
	// target bad, to activate it, and by U-Boot's own counter.
	const sectors, torn = uboot.EnvSize / 512, 3
	dev.Disk.CutAtWrite(4*sectors+torn, 0, func(w nbd.Write) bool {
		return w.Offset >= uboot.EnvOffset && w.Offset < uboot.EnvOffset2+uboot.EnvSize
	})
	installAndReboot(t, dev, url(server, two))
	select {
	case <-dev.Disk.Cut():
	case <-within(t, 3*time.Minute).Done():
		t.Fatalf("the trial's first start was never counted; the console's last words:\n%s", tail(dev.VM.Console.Text()))
	}
	dev.PowerOff()
	if env, copies, err := dev.Env(); err != nil || copies != 1 || env["BOOT_ORDER"] != "B A" || env["BOOT_B_LEFT"] != "3" || env["upgrade_available"] != "1" {
		t.Fatalf("after the cut: %d intact copies, %v, %v", copies, env, err)
	}
	boot(t, dev)
	expectSlot(t, settled(t, dev, 2*time.Minute), "b", "2.0", client.Success, "is confirmed")
	expectEnv(t, dev, map[string]string{"BOOT_ORDER": "B A", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "3", "upgrade_available": "0"})
	if out := run(t, dev, "updater-bootctl", "status"); !containsAll(out, "primary slot:  b", "trial:         no", "bad slots:     none") {
		t.Errorf("updater-bootctl status, which is not told the scheme:\n%s", out)
	}

	// A confirmed system that is switched on and off gets its starts back each time.
	for range 4 {
		dev.PowerOff()
		boot(t, dev)
		expectEnv(t, dev, map[string]string{"BOOT_ORDER": "B A", "BOOT_B_LEFT": "3"})
	}

	resets := dev.Resets()
	installAndReboot(t, dev, url(server, three))
	// One reboot into the trial, and one after each of three panics.
	if err := dev.AwaitReset(within(t, 8*time.Minute), resets+4); err != nil {
		t.Fatal(err)
	}
	if n := dev.VM.Console.Count(`starting slot A of A B`); n != 3 {
		t.Errorf("%d starts of the trial on the console, want 3", n)
	}
	expectSlot(t, settled(t, dev, time.Minute), "b", "2.0", client.RolledBack, "fell back after 3 tries")
	expectEnv(t, dev, map[string]string{"BOOT_ORDER": "B", "BOOT_A_LEFT": "0", "BOOT_B_LEFT": "3", "upgrade_available": "0"})
}
