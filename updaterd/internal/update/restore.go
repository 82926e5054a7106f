// SPDX-License-Identifier: Apache-2.0

package update

import (
	"errors"
	"slices"

	"github.com/updaterd/updaterd/bootctl"
)

// restore writes a lost boot environment anew, if that is configured and it is
// proven which slot runs. Everybody is told: it should never happen.
func (u *Updater) restore() {
	if u.o.Restore == nil || u.booted == "" || !errors.Is(u.statusErr, bootctl.ErrDamaged) {
		return
	}
	u.o.Log.Error("boot environment lost", "err", u.statusErr)
	lost := u.statusErr
	change := restoration(u.j, u.booted, u.store.slots.Confirmed)
	err := u.o.Restore(change)
	u.refresh()
	if err != nil {
		u.alarm("The boot environment is lost (%v) and could not be restored from the defaults: %v.", lost, err)
		return
	}
	u.alarm("The boot environment was lost (%v). It was restored from the defaults: slot %s is primary (on trial: %v), marked bad: %v. Find out what destroyed it.",
		lost, u.booted, change.Trial == bootctl.TrialBegin, change.Bad)
}

// restoration is what a restored environment has to say of the slots, by what
// the journal and the records know. The slot that runs is primary. It is on
// trial if its trial was not over when the environment was lost: restoring must
// not confirm it, and must keep the way back. A slot is bad unless it is known
// to hold a whole system: it may have been in the middle of being written.
func restoration(j Journal, booted bootctl.Slot, confirmed []bootctl.Slot) bootctl.Change {
	other := booted.Other()
	c := bootctl.Change{Primary: booted, Trial: bootctl.TrialEnd, NotBad: []bootctl.Slot{booted}, BothCopies: true}
	unjudged := false
	if j.Job != nil && j.State != StateIdle {
		began := slices.Contains([]State{StateInstalled, StatePendingReboot, StateTrial, StateRollingBack}, j.State)
		unjudged = began && booted == j.Job.Target
	} else {
		// The journal may be lost, too. A slot that was never confirmed, beside
		// one that was, is a new system.
		unjudged = !slices.Contains(confirmed, booted) && slices.Contains(confirmed, other)
	}
	switch {
	case unjudged:
		c.Trial, c.NotBad = bootctl.TrialBegin, []bootctl.Slot{booted, other}
	case slices.Contains(confirmed, other):
		c.NotBad = append(c.NotBad, other)
	default:
		c.Bad = []bootctl.Slot{other}
	}
	return c
}
