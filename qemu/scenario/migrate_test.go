// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/updaterd/client"
)

// The hook keeps a diary. It can be told to take long, once, and to fail.
const (
	hookFile = "/usr/libexec/migrate-data"
	appDir   = "/data/application"
	hook     = `#!/bin/sh
cd ` + appDir + ` || exit 1
told="$UPDATERD_OLD_VERSION/$UPDATERD_OLD_SEQUENCE $UPDATERD_NEW_VERSION/$UPDATERD_NEW_SEQUENCE"
echo "begin $told $(updater-bootctl get upgrade_available)" >>diary
sync
if [ -e slow ]; then rm slow; sync; sleep 600; fi
if [ -e full ]; then echo "no room for the new form"; exit 1; fi
echo "done $told" >>diary
`
)

// TestMigration: the hook of a release runs when that is confirmed, again after
// the plug was pulled in it, and again after it failed; that of a release which
// is rolled back never runs.
func TestMigration(t *testing.T) {
	t.Parallel()
	w := workshopFor(t)
	system := func(version string, broken assets.Broken) string {
		return w.image(t, device.System{Flavour: assets.Small, Packages: assets.Base, Version: version, Broken: broken, Health: healthOfSmall,
			Download: `store_budget = "48MiB"`, Slots: "\n[migrate]\nargv = [\"" + hookFile + "\"]\n",
			More: []assets.File{{Path: hookFile, Mode: 0o755, Content: []byte(hook)}}})
	}
	one, two, bad, three := system("1.0-hook", assets.Healthy), system("2.0-hook", assets.Healthy), system("2.5-hook", assets.BrokenHealth), system("3.0-hook", assets.Healthy)
	bundle := func(image, version string, sequence uint64, from string) string {
		return w.bundle(t, device.Release{Version: version, Sequence: sequence, Image: image, From: []string{from}})
	}
	second, unhealthy, third := bundle(two, "2.0-hook", 20, one), bundle(bad, "2.5-hook", 25, two), bundle(three, "3.0-hook", 30, two)
	server := w.serve(t, w.bundles)
	dev := w.newDevice(t, assets.Disk{Flavour: assets.Small, SlotA: one, EnvID: "factory"})
	boot(t, dev)
	diary := func(want ...string) {
		t.Helper()
		got := strings.TrimSpace(run(t, dev, "sh", "-c", "cat "+appDir+"/diary 2>/dev/null || true"))
		if got != strings.Join(want, "\n") {
			t.Fatalf("the diary is\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
	}
	// until waits for what a command of the guest's shell says.
	until := func(what string) {
		t.Helper()
		run(t, dev, "sh", "-c", "n=0; until "+what+"; do n=$((n+1)); [ $n -lt 300 ] || exit 1; sleep 0.2; done")
	}
	run(t, dev, "sh", "-c", "mkdir -p "+appDir+" && touch "+appDir+"/slow && sync")
	diary()

	installAndReboot(t, dev, url(server, second))
	if err := dev.AwaitReset(within(t, 5*time.Minute), 1); err != nil {
		t.Fatal(err)
	}
	until("grep -q begin " + appDir + "/diary")
	begun := "begin 1.0-hook/ 2.0-hook/20 upgrade_available=0"
	diary(begun)
	st := status(t, dev)
	if p := strings.Join(st.Problems, "\n"); st.State != client.Idle || !strings.Contains(p, "being migrated to version 2.0-hook") {
		t.Errorf("while the hook works: state %s, problems %q", st.State, p)
	}
	if out := refused(t, dev, exitRefused, "updaterctl", "install", url(server, third)); !strings.Contains(out, "migrated") {
		t.Errorf("an update in a migration was refused with: %s", out)
	}
	dev.PowerOff()
	boot(t, dev)
	until("grep -q done " + appDir + "/diary")
	done := []string{begun, begun, "done 1.0-hook/ 2.0-hook/20"}
	diary(done...)
	st = settled(t, dev, time.Minute)
	expectSlot(t, st, "b", "2.0-hook", client.Success, "is confirmed")

	resets := dev.Resets()
	installAndReboot(t, dev, url(server, unhealthy))
	if err := dev.AwaitReset(within(t, 8*time.Minute), resets+2); err != nil {
		t.Fatal(err)
	}
	st = settled(t, dev, 2*time.Minute)
	expectSlot(t, st, "b", "2.0-hook", client.RolledBack, assets.HealthMessage)
	diary(done...)

	run(t, dev, "sh", "-c", "touch "+appDir+"/full && sync")
	resets = dev.Resets()
	installAndReboot(t, dev, url(server, third))
	if err := dev.AwaitReset(within(t, 5*time.Minute), resets+1); err != nil {
		t.Fatal(err)
	}
	until("updaterctl status --json | grep -q NotMigrated")
	st = settled(t, dev, time.Minute)
	if r := st.LastResult; st.BootedSlot != "a" || st.PrimarySlot != "a" || r.Outcome != client.Success || r.Error != client.NotMigrated ||
		!strings.Contains(r.Message, "slot a is confirmed; but the data were not migrated: command migrate exited with status 1: no room for the new form") {
		t.Errorf("after the hook failed: slot %s, primary %s, last result %+v", st.BootedSlot, st.PrimarySlot, r)
	}
	begun = "begin 2.0-hook/20 3.0-hook/30 upgrade_available=0"
	diary(append(done, begun)...)
	run(t, dev, "sh", "-c", "rm "+appDir+"/full && sync")
	dev.PowerOff()
	boot(t, dev)
	until("grep -q 'done 2.0' " + appDir + "/diary")
	diary(append(done, begun, begun, "done 2.0-hook/20 3.0-hook/30")...)
	until("! updaterctl status --json | grep -q NotMigrated")
	expectSlot(t, settled(t, dev, time.Minute), "a", "3.0-hook", client.Success, "is confirmed")

	// The slot that runs was installed here: check-config compares every byte of it.
	if out := run(t, dev, "updaterd", "check-config"); !strings.Contains(out, "rootfs.a is what was installed, byte by byte") {
		t.Errorf("check-config says\n%s", out)
	}
}
