// SPDX-License-Identifier: Apache-2.0

package update

import (
	"cmp"
	"fmt"
)

// unrecorded says how a trial goes on whose journal could not be written, for
// instance because the new system cannot mount the data partition. It has to
// come to an end all the same: what would have been put on record is kept in
// memory, and the boot environment is enough for all that follows.
//
// Such a trial is not healthy, whatever the checks say. Where its journal is now,
// the old system wrote one: going back is safe, and makes updates work again.
// Confirmed, the device could never be updated any more. Only where there is no way
// back is a system that passed its checks confirmed, in the boot environment
// alone; the next start that can write puts that on record. So it is where the data
// partition is merely full: that is no fault of the release, and making room mends it.
//
// It is for trials only, whose starts the bootloader counts: nobody else would, and
// a reboot that leads back to the same slot must not be asked for without end.
func unrecorded(j Journal, e Event) (Journal, []Effect, bool) {
	if e.Broke.Kind != DoJournal || e.Broke.Journal.Job == nil || e.Unreadable {
		return j, nil, false
	}
	want := e.Broke.Journal.clone()
	if job := want.Job; e.Booted != job.Target || !e.Facts.onTrial(job.Target) {
		return j, nil, false
	}
	undecided := want.State == StateTrial && want.Job.Reason == "" && !want.Job.Override
	switch {
	case j.State == StateDownloading || j.State == StateInstalling:
		return j, nil, false // it ends the job, and a start finds the trial behind it
	case undecided && j.State != StateRollingBack && (j.State != StateTrial || j.Job.BootID != want.Job.BootID):
		return want, []Effect{ // its first start, or the next
			kept(want),
			alarm("The trial cannot be put on record: %s. Unless that is mended before its end, slot %s is given up.", e.Reason, want.Job.Target),
			do(DoCheck),
		}, true
	case j.Job == nil || want.Job.Override && j.State != StateTrial:
		return j, nil, false
	case want.Job.Override:
		// A person must not confirm what nobody will know of. The checks were
		// stopped for it.
		return j, []Effect{
			alarm("The new system cannot be marked good: %s. Its trial goes on.", e.Reason),
			do(DoCheck),
		}, true
	case undecided && (e.Name == NameNoSpace || !untraceable(j, e.Facts) && noWayBack(j, e.Facts) != ""): // judged good
		return j, []Effect{
			applied(commit2(j)),
			do(DoSettle),
			alarm("Slot %s is confirmed, but that cannot be put on record before there is a data partition with room: %s.", want.Job.Target, e.Reason),
		}, true
	}
	back, effects := goBack(j, e.Facts, cmp.Or(want.Job.Reason, fmt.Sprintf("it cannot write its records: %s", e.Reason)))
	for i, fx := range effects {
		if fx.Kind == DoJournal {
			effects[i] = kept(*fx.Journal)
		}
	}
	return back, effects, true
}

// kept makes j the journal in force, for this life of the daemon only.
func kept(j Journal) Effect {
	fx := saved(j)
	fx.Kind = DoKeep
	return fx
}

// untraceable reports that nobody knows what the slot to go back to holds: the
// trial was found without a journal, and without a record of that slot.
func untraceable(j Journal, f Facts) bool {
	return j.Job.Adopted && !j.Job.SourceConfirmed && !f.Unreadable && !f.Boot.IsBad(j.Job.Source) && f.onTrial(j.Job.Target)
}
