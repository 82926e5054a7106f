// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/qemu/nbd"
	"github.com/updaterd/updaterd/qemu/origin"
	"github.com/updaterd/updaterd/updaterd/client"
)

// TestPowerCuts is scenario 6: one device, whose plug is pulled in one update
// after the other, each time at another write.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	s := smallSystems(t)
	server := s.serve(t, s.bundles)
	dev := s.device(t)
	dev.Watched = true
	boot(t, dev)
	// The first sectors of a copy hold its checksum and all variables, so that a
	// cut at the third one tears it.
	const env, envEnd, sectors, torn = 0x100000, 0x10c000, 0x4000 / 512, 3
	environment := func(w nbd.Write) bool { return w.Offset >= env && w.Offset < envEnd }
	// First, because later the slots hold what is to be written already.
	t.Run("in the middle of the slot", func(t *testing.T) {
		from, to := slotRange(t, other(status(t, dev).BootedSlot))
		cutAndFinish(t, s, dev, server, 20_000, func(w nbd.Write) bool { return w.Offset >= from && w.Offset < to })
	})
	if t.Failed() {
		return
	}
	for _, c := range []struct {
		name string
		n    int
	}{
		// The card writes a copy of the environment in sectors.
		{"between the copies of marking the target bad", sectors + 1},
		{"before commit point 1", 2*sectors + 1},
		{"in commit point 1", 2*sectors + torn},
		{"in U-Boot's count of the first start", 3*sectors + torn},
		{"before commit point 2", 4*sectors + 1},
		{"in commit point 2", 4*sectors + torn},
		{"between commit point 2 and the second copy", 5*sectors + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			cutAndFinish(t, s, dev, server, c.n, environment)
		})
		if t.Failed() {
			return
		}
	}
}

func other(slot string) string {
	if slot == "a" {
		return "b"
	}
	return "a"
}

// cutAndFinish updates to the other version, cuts the power at the n-th write
// that matches, and expects that the update finishes by itself.
func cutAndFinish(t *testing.T, s *small, dev *device.Device, server *origin.Server, n int, match func(nbd.Write) bool) {
	before := status(t, dev)
	name, version := s.two, "2.0"
	if before.Version == "2.0" {
		name, version = s.one, "1.0"
	}
	server.Reset()
	dev.Disk.CutAtWrite(n, 0, match)
	asked := make(chan error, 1)
	ctx := within(t, 3*time.Minute)
	go func() {
		_, err := dev.Run(ctx, "updaterctl", "install", "--reboot", url(server, name))
		asked <- err
	}()
	for cut := false; !cut; {
		select {
		case <-dev.Disk.Cut():
			cut = true
		case err := <-asked:
			// Otherwise it ended with the installation, or with a reboot.
			var failed *device.CommandError
			if errors.As(err, &failed) {
				t.Fatalf("%v: %s", err, failed.Stdout)
			}
			t.Logf("the command ended before the cut: %v", err)
		case <-ctx.Done():
			t.Fatalf("write %d never came; the console's last words:\n%s", n, tail(dev.VM.Console.Text()))
		}
	}
	dev.PowerOff()
	vars, copies, err := dev.Env()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("after the cut: %d intact copies, boot_slot=%s boot_bad=%q upgrade_available=%s bootcount=%s", copies, vars["boot_slot"], vars["boot_bad"], vars["upgrade_available"], vars["bootcount"])
	if strings.Contains(vars["boot_bad"], vars["boot_slot"]) {
		t.Fatal("the primary slot is marked bad")
	}
	if vars["upgrade_available"] != "1" && vars["boot_slot"] == before.TargetSlot && !holds(t, dev, before.TargetSlot, s) {
		t.Fatal("an incomplete slot is primary")
	}
	boot(t, dev)
	first := status(t, dev)
	if first.BootedSlot != before.BootedSlot && !first.Trial && first.State != client.Idle {
		t.Errorf("after the cut the device runs slot %s, neither confirmed before nor on trial", first.BootedSlot)
	}
	ctx = within(t, 4*time.Minute)
	for {
		st, err := dev.Status(ctx)
		if err == nil && st.Version == version && st.State == client.Idle && !st.Trial {
			expectSlot(t, st, before.TargetSlot, version, client.Success, "")
			break
		}
		if err == nil && st.State == client.Idle && st.LastResult != nil && st.LastResult.Outcome != client.Success {
			t.Fatalf("the update did not finish: %+v", st.LastResult)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the update did not finish: %v %+v", err, st)
		case <-time.After(500 * time.Millisecond):
		}
	}
	expectEnv(t, dev, map[string]string{"boot_slot": before.TargetSlot, "upgrade_available": "0", "bootcount": "0", "boot_bad": ""})
	t.Logf("finished; %d bytes were sent in all", server.Sent())
}

func tail(text string) string { return text[max(0, len(text)-1500):] }

func holds(t *testing.T, dev *device.Device, slot string, s *small) bool {
	t.Helper()
	from, to := slotRange(t, slot)
	card := readCard(t, dev, from, to)
	for _, path := range []string{s.v1, s.v2} {
		image, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(card, image) {
			return true
		}
	}
	return false
}
