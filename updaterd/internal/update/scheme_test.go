// SPDX-License-Identifier: Apache-2.0

package update

import (
	"cmp"
	"slices"
	"strings"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
)

// schemes are those that the boot environment can have.
var schemes = []string{uboot.Bootcount, uboot.Bootorder}

// A generation is what one copy of the environment says, read without bootctl.
type generation struct {
	bootctl.Status                // Primary, Trial and Bad alone
	spent          []bootctl.Slot // has no starts left, but is in the order
}

// startable reports that the bootloader starts slot sooner or later, unless the
// ones before it get to a system that decides otherwise.
func (g generation) startable(slot bootctl.Slot) bool {
	if slices.Contains(g.spent, slot) {
		// When no slot in the order has starts left, all are filled up.
		return len(g.spent)+len(g.Bad) == 2
	}
	return !g.IsBad(slot)
}

// generations are the environments of the intact copies, the one in force first.
func (w *world) generations() []generation {
	copies := []uboot.Copy{uboot.DecodeCopy(w.medium.Raw(0), true), uboot.DecodeCopy(w.medium.Raw(1), true)}
	var out []generation
	first := uboot.Select(copies[0], copies[1])
	for _, i := range []int{first, 1 - first} {
		if i < 0 || i > 1 || !copies[i].Valid {
			continue
		}
		e, err := uboot.Parse(copies[i].Data)
		if err != nil {
			continue
		}
		if w.scheme == uboot.Bootorder {
			out = append(out, inOrder(e, w.running))
		} else {
			out = append(out, counting(e))
		}
	}
	return out
}

func counting(e *uboot.Env) generation {
	var g generation
	g.Primary, g.Trial = bootctl.Slot(e.Get("boot_slot")), e.Get("upgrade_available") == "1"
	for _, bad := range strings.Fields(e.Get("boot_bad")) {
		g.Bad = append(g.Bad, bootctl.Slot(bad))
	}
	return g
}

// inOrder takes the slot that runs for one that is not spent: it may be in its
// last start, in which the daemon fills its starts up again. What this leaves out
// is a cut there, after two before it: three starts in a row that do not get as
// far as the daemon are a fall-back in this scheme, whatever the reason.
func inOrder(e *uboot.Env, running bootctl.Slot) generation {
	var g generation
	order := strings.Fields(strings.ToLower(cmp.Or(e.Get("BOOT_ORDER"), "A B")))
	g.Primary = bootctl.Slot(order[0])
	for _, slot := range []bootctl.Slot{"b", "a"} {
		switch {
		case !slices.Contains(order, string(slot)):
			g.Bad = append(g.Bad, slot)
		case slot != running && e.Get("BOOT_"+strings.ToUpper(string(slot))+"_LEFT") == "0":
			g.spent = append(g.spent, slot)
		}
	}
	if slices.Contains(g.spent, g.Primary) && len(order) == 2 && len(g.spent) == 1 {
		g.Primary = bootctl.Slot(order[1])
	}
	g.Trial = e.Get("upgrade_available") == "1" && order[0] == string(g.Primary)
	return g
}

// control is the boot environment as it is seen from a start of the device.
func (w *world) control(m *machine) *uboot.Control {
	c, err := uboot.NewScheme(w.medium, uboot.Scheme{Name: w.scheme, Started: m.start.Slot, BootID: m.bootID})
	if err != nil {
		panic(err)
	}
	return c
}
