// SPDX-License-Identifier: Apache-2.0

package update

import "github.com/updaterd/updaterd/bootctl"

// rom is the switch of a class of the world that its slots stand for, too: what
// it has selected must be whole, before every step of every schedule.
type rom struct{ w *world }

func (r rom) Selected() (bootctl.Slot, error) { return r.w.selected, nil }

func (r rom) Select(slot bootctl.Slot) error {
	if r.w.selected == slot {
		return nil
	}
	if err := r.w.step("switch: slot " + string(slot)); err != nil {
		return err
	}
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.selected = slot
	return nil
}

// switched is the control of a device with a switch, settled as at every start.
func (w *world) switched(m *machine) *bootctl.Switched {
	control := bootctl.WithSwitches(w.control(m), map[string]bootctl.Switch{"bootloader": rom{w}})
	_ = control.Settle() // a cut in it ends this life at the next step
	return control
}

// checkSwitch is part of check.
func (w *world) checkSwitch(when string) {
	if c := w.slots[w.selected]; !c.bootable() || !c.is(c.chunks[0]) {
		w.fault("9: %s: the switch is at slot %s, which is half written (%q)", when, w.selected, c.chunks)
	}
}
