// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"testing"
	"time"

	"github.com/updaterd/updaterd/qemu/assets"
)

// TestEnvironmentUnproven starts a device whose factory wrote no id into the
// boot environment: it installs nothing until one reboot has shown that U-Boot
// uses what updaterd writes.
func TestEnvironmentUnproven(t *testing.T) {
	t.Parallel()
	s := smallSystems(t)
	server := s.serve(t, s.bundles)
	dev := s.newDevice(t, assets.Disk{Flavour: assets.Small, SlotA: s.v1})
	boot(t, dev)
	if out := refused(t, dev, exitRefused, "updaterctl", "install", url(server, s.two)); !containsAll(out, "not proven", "reboot once") {
		t.Errorf("refused with: %s", out)
	}
	if n := server.Sent(); n > 1<<20 {
		t.Errorf("%d bytes were fetched before the refusal", n)
	}
	dev.PowerOff()
	boot(t, dev)
	if problems := status(t, dev).Problems; len(problems) > 0 {
		t.Fatalf("after one reboot: %v", problems)
	}
	run(t, dev, "updaterctl", "install", url(server, s.two))
	if st, err := dev.Status(within(t, time.Minute)); err != nil || st.PrimarySlot != "b" || !st.Trial {
		t.Errorf("after installing: %+v, %v", st, err)
	}
}
