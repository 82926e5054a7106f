// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/qemu/origin"
	"github.com/updaterd/updaterd/qemu/vm"
	"github.com/updaterd/updaterd/updaterd/client"
)

// healthOfSystemd is short enough for tests, and long enough for emulation.
const healthOfSystemd = `units = ["dbus.service", "systemd-logind.service"]
min_uptime = "3s"
deadline = "4m"`

// TestSystemd is the life of one device with a real Debian system: a good
// update, three bad ones, and one over HTTPS with a clock that was never set.
func TestSystemd(t *testing.T) {
	t.Parallel()
	w := workshopFor(t)
	certificate, ca, err := origin.Certificate(vm.Host)
	if err != nil {
		t.Fatal(err)
	}
	// The CA is made anew each time, so it is put on the data partition: the
	// systems stay the same from run to run.
	const caFile = "/data/ca.pem"
	system := func(version string, packages assets.Packages, broken assets.Broken) string {
		return w.image(t, device.System{
			Flavour: assets.Systemd, Packages: packages, Version: version, Broken: broken,
			Health: healthOfSystemd, Download: `ca_file = "` + caFile + `"`,
		})
	}
	v1, v2 := system("1.0", assets.Base, assets.Healthy), system("2.0", assets.Updated, assets.Healthy)
	good := w.bundle(t, device.Release{Version: "2.0", Sequence: 2, Image: v2, From: []string{v1}})
	bad := map[assets.Broken]string{}
	for i, broken := range []assets.Broken{assets.BrokenHealth, assets.BrokenInit, assets.BrokenHang} {
		version := "3.0-" + string(broken)
		image := system(version, assets.Updated, broken)
		bad[broken] = w.bundle(t, device.Release{Version: version, Sequence: uint64(3 + i), Image: image, From: []string{v2}})
	}
	server := w.serve(t, w.bundles)
	dev := w.newDevice(t, assets.Disk{Flavour: assets.Systemd, SlotA: v1, EnvID: "factory"})
	ctx := within(t, time.Minute)
	if err := dev.PowerOn(ctx); err != nil {
		t.Fatal(err)
	}
	if err := dev.Ready(within(t, 4*time.Minute)); err != nil {
		t.Fatal(err)
	}
	// The agent is up before the data partition is.
	run(t, dev, "sh", "-c", "until grep -q ' /data ' /proc/mounts; do sleep 0.2; done")
	if err := dev.Agent().Put(within(t, time.Minute), caFile, 0o644, ca); err != nil {
		t.Fatal(err)
	}
	// The file was missing when the daemon first started.
	run(t, dev, "systemctl", "restart", "updaterd")
	if err := dev.Up(within(t, 4*time.Minute)); err != nil {
		t.Fatal(err)
	}

	step := func(name string, f func(t *testing.T)) {
		if !t.Run(name, f) {
			t.FailNow()
		}
	}
	step("1 by delta over HTTP", func(t *testing.T) { goodUpdate(t, dev, server, good, filepath.Join(w.bundles, good)) })
	step("2 and 8 health check fails, over HTTPS in 1970", func(t *testing.T) {
		failingHealth(t, w, dev, certificateServer(t, w, certificate), bad[assets.BrokenHealth])
	})
	step("3 never gets to user space", func(t *testing.T) {
		server.Reset()
		resets := dev.Resets()
		starts := dev.VM.Console.Count(`starting slot a, bootcount \d+ of`)
		installAndReboot(t, dev, url(server, bad[assets.BrokenInit]))
		// One reboot into the trial, and one after each of three panics.
		if err := dev.AwaitReset(within(t, 8*time.Minute), resets+4); err != nil {
			t.Fatal(err)
		}
		if n := dev.VM.Console.Count(`starting slot a, bootcount \d+ of`) - starts; n != 3 {
			t.Errorf("%d counted starts of the trial on the console, want 3", n)
		}
		s := settled(t, dev, 2*time.Minute)
		expectSlot(t, s, "b", "2.0", client.RolledBack, "fell back")
		expectEnv(t, dev, map[string]string{"boot_slot": "b", "upgrade_available": "0", "bootcount": "0", "boot_bad": "a"})
	})
	step("4 hangs in the trial", func(t *testing.T) {
		resets := dev.Resets()
		installAndReboot(t, dev, url(server, bad[assets.BrokenHang]))
		if err := dev.VM.ExpectEvent(within(t, 8*time.Minute), "WATCHDOG", 3); err != nil {
			t.Fatal(err)
		}
		if err := dev.AwaitReset(within(t, 5*time.Minute), resets+4); err != nil {
			t.Fatal(err)
		}
		s := settled(t, dev, 2*time.Minute)
		expectSlot(t, s, "b", "2.0", client.RolledBack, "fell back")
		expectEnv(t, dev, map[string]string{"boot_slot": "b", "upgrade_available": "0", "bootcount": "0", "boot_bad": "a"})
	})
}

func certificateServer(t *testing.T, w *workshop, certificate *tls.Certificate) *origin.Server {
	t.Helper()
	s, err := origin.Start(w.bundles, certificate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func goodUpdate(t *testing.T, dev *device.Device, server *origin.Server, name, path string) {
	out := refused(t, dev, exitNotAuthorized, "setpriv", "--reuid=app", "--regid=app", "--clear-groups", "updaterctl", "install", url(server, name))
	t.Logf("an application without the polkit right was told: %s", out)
	if n := server.Sent(); n != 0 {
		t.Errorf("a refused caller cost %d bytes", n)
	}
	if mounts := run(t, dev, "cat", "/proc/mounts"); !strings.Contains(mounts, "/dev/mmcblk0p1 / ext4 ro") {
		t.Errorf("the root file system is not read-only:\n%s", mounts)
	}
	release, err := dev.Inspect(within(t, time.Minute), url(server, name))
	if err != nil {
		t.Fatal(err)
	}
	server.Reset()
	begin := time.Now()
	t.Log(run(t, dev, "updaterctl", "install", url(server, name)))
	sent := server.Sent()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if uint64(sent) != uint64(release.Expected) {
		t.Errorf("inspect promised %d bytes, the server sent %d", release.Expected, sent)
	}
	if len(release.Images) != 1 || release.Images[0].Recipe != "delta" {
		t.Errorf("inspect chose %+v, want the delta", release.Images)
	}
	if sent*2 > info.Size() {
		t.Errorf("the delta cost %d of the bundle's %d bytes", sent, info.Size())
	}
	t.Logf("installed in %.1f s; %d bytes over the wire, bundle %d", time.Since(begin).Seconds(), sent, info.Size())
	expectEnv(t, dev, map[string]string{"boot_slot": "b", "upgrade_available": "1", "bootcount": "0", "boot_bad": ""})
	resets := dev.Resets()
	reboot(t, dev)
	if err := dev.AwaitReset(within(t, 5*time.Minute), resets+1); err != nil {
		t.Fatal(err)
	}
	s := settled(t, dev, 5*time.Minute)
	expectSlot(t, s, "b", "2.0", client.Success, "")
	expectEnv(t, dev, map[string]string{"boot_slot": "b", "upgrade_available": "0", "bootcount": "0", "boot_bad": ""})
}

// failingHealth installs over HTTPS with a private CA, on a device whose clock
// says 1970, a system whose health check fails.
func failingHealth(t *testing.T, w *workshop, dev *device.Device, server *origin.Server, name string) {
	dev.PowerOff()
	dev.RTC = "1970-01-01T00:00:00"
	boot(t, dev)
	// systemd moves a clock in the past forward to its own build time.
	if out := run(t, dev, "sh", "-c", "date -s @1000; date +%s"); !strings.Contains(out, "1970") {
		t.Fatalf("the clock was not set back: %s", out)
	}
	resets := dev.Resets()
	run(t, dev, "updaterctl", "install", url(server, name))
	if server.Sent() == 0 {
		t.Fatal("the HTTPS server sent nothing")
	}
	if year := run(t, dev, "date", "+%Y"); strings.TrimSpace(year) != "1970" {
		t.Errorf("the clock says %s, so nothing was shown about a clock of 1970", year)
	}
	reboot(t, dev)
	if err := dev.AwaitReset(within(t, 8*time.Minute), resets+2); err != nil {
		t.Fatal(err)
	}
	s := settled(t, dev, 2*time.Minute)
	expectSlot(t, s, "b", "2.0", client.RolledBack, assets.HealthMessage)
	expectEnv(t, dev, map[string]string{"boot_slot": "b", "upgrade_available": "0", "bootcount": "0", "boot_bad": "a"})
	// Not again by itself: without being asked to, it is refused.
	if out := refused(t, dev, exitRefused, "updaterctl", "install", url(server, name)); !strings.Contains(out, "--retry") {
		t.Errorf("the known bad bundle was refused with: %s", out)
	}
	dev.PowerOff()
	dev.RTC = ""
	boot(t, dev)
	refused(t, dev, 0, "updaterctl", "mark-bad", "booted")
}
