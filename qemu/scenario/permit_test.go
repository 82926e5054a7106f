// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bundle/permit"
	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/updaterd/client"
)

// TestPermit confirms a release whose floor forbids the one before, and goes back to
// that with a permit, as docs/floors.md says; without one, or with one that does not
// fit, the device refuses.
func TestPermit(t *testing.T) {
	t.Parallel()
	w := workshopFor(t)
	system := func(version string) string {
		return w.image(t, device.System{Flavour: assets.Small, Packages: assets.Base, Version: version, Health: healthOfSmall,
			Download: `store_budget = "48MiB"`, Slots: "\n[device]\nid_file = \"/etc/device-id\"\n",
			More: []assets.File{{Path: "/etc/device-id", Content: []byte("board-7\n")}}})
	}
	one, two := system("1.0-floor"), system("2.0-floor")
	older := w.bundle(t, device.Release{Version: "1.0-floor", Sequence: 19, Floor: 5, Image: one, From: []string{two}})
	newer := w.bundle(t, device.Release{Version: "2.0-floor", Sequence: 20, Floor: 20, Image: two, From: []string{one}})
	server := w.serve(t, w.bundles)
	dev := w.newDevice(t, assets.Disk{Flavour: assets.Small, SlotA: one, EnvID: "factory"})
	boot(t, dev)
	installAndReboot(t, dev, url(server, newer))
	st := settled(t, dev, 5*time.Minute)
	expectSlot(t, st, "b", "2.0-floor", client.Success, "is confirmed")
	if st.Floor != 20 || st.DeviceID != "board-7" {
		t.Fatalf("floor %d of device %q, want 20 of board-7", st.Floor, st.DeviceID)
	}

	now := time.Now().UTC().Truncate(time.Second)
	give := func(name string, change func(p *permit.Permit)) string {
		p := &permit.Permit{Format: permit.Format, ID: strings.Repeat("0f", 16), Compatible: []string{device.Compatible},
			Devices: []string{"board-7"}, First: 18, Last: 19, Issued: now.AddDate(0, 0, -1), Expires: now.AddDate(0, 0, 1)}
		if change != nil {
			change(p)
		}
		b, err := permit.Seal(p, w.Signer)
		if err != nil {
			t.Fatal(err)
		}
		path := fmt.Sprintf("/tmp/%s.permit", name)
		run(t, dev, "sh", "-c", `printf %s "$1" > "$2"`, "sh", string(b), path)
		return path
	}
	install := []string{"updaterctl", "install", url(server, older)}
	for _, c := range []struct{ name, permit, want string }{
		{"no permit", "", "has sequence 19, below the floor of 20"},
		{"expired permit", give("expired", func(p *permit.Permit) { p.Issued, p.Expires = now.AddDate(0, 0, -3), now.AddDate(0, 0, -2) }), "it ended at"},
		{"permit for another device", give("foreign", func(p *permit.Permit) { p.Devices = []string{"board-8"} }), `for other devices than "board-7"`},
		{"permit for another range", give("range", func(p *permit.Permit) { p.First, p.Last = 10, 18 }), "sequences 10 to 18, the release has 19"},
	} {
		argv := install
		if c.permit != "" {
			argv = append([]string{"updaterctl", "install", "--permit", c.permit}, url(server, older))
		}
		if out := refused(t, dev, exitRefused, argv...); !strings.Contains(out, c.want) {
			t.Errorf("%s: refused with %s", c.name, out)
		}
	}
	if st := status(t, dev); st.State != client.Idle || st.Floor != 20 {
		t.Errorf("after the refusals: state %s, floor %d", st.State, st.Floor)
	}

	run(t, dev, "updaterctl", "install", "--permit", give("good", nil), url(server, older))
	if st := status(t, dev); st.Floor != 20 {
		t.Errorf("floor %d before the older release is confirmed, want 20", st.Floor)
	}
	reboot(t, dev)
	st = settled(t, dev, 5*time.Minute)
	expectSlot(t, st, "a", "1.0-floor", client.Success, "by permit "+strings.Repeat("0f", 16))
	if st.Floor != 18 {
		t.Errorf("floor %d once the older release is confirmed, want 18, the first of the permit", st.Floor)
	}
}
