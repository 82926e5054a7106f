// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
)

// TestUnjudged starts systems on trial in which systemd never gets to updaterd, and
// goes on feeding the watchdog: each start ends by a reboot, which costs a try.
func TestUnjudged(t *testing.T) {
	t.Parallel()
	w := workshopFor(t)
	const deadline = "25s" // of which only the end is waited for
	for _, broken := range []assets.Broken{assets.BrokenMount, assets.BrokenStuck} {
		t.Run(string(broken), func(t *testing.T) {
			image := w.image(t, device.System{Flavour: assets.Systemd, Version: "3.0-" + string(broken), Broken: broken,
				Health: strings.Replace(healthOfSystemd, "4m", deadline, 1)})
			// Nothing falls back before the fourth start, so slot a stays empty.
			dev := w.newDevice(t, assets.Disk{Flavour: assets.Systemd, SlotB: image, EnvID: "factory",
				Env: map[string]string{"boot_slot": "b", "upgrade_available": "1"}})
			if err := dev.PowerOn(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
			for _, line := range []string{
				`starting slot b, bootcount 1 of 3, trial 1`,
				`this trial cannot be judged; it ends with a reboot`,
				`starting slot b, bootcount 2 of 3, trial 1`,
			} {
				if _, err := dev.VM.Console.Expect(within(t, 6*time.Minute), line); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
