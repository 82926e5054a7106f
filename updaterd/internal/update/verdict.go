// SPDX-License-Identifier: Apache-2.0

package update

import (
	"cmp"
	"fmt"

	"github.com/updaterd/updaterd/bootctl"
)

// judged ends a trial by the verdict of the checks, unless somebody ended it in
// the boot environment meanwhile, which says what is.
func judged(j Journal, e Event) (Journal, []Effect, error) {
	switch {
	case e.Unreadable:
	case e.Facts.steady(j.Job.Target) && e.Kind == EventUnhealthy:
		return overridden(j, e)
	case !e.Facts.steady(j.Job.Target) && !e.Facts.onTrial(j.Job.Target):
		return givenUp(j, e, calledOff)
	}
	if e.Kind == EventUnhealthy {
		return givenUp(j, e, e.Reason)
	}
	return confirmed(j, e)
}

// calledOff is why a trial ends that the boot environment no longer knows of.
const calledOff = "the boot environment says that it is not to be started"

// overridden confirms the trial by hand; that is on record before it takes effect.
func overridden(j Journal, e Event) (Journal, []Effect, error) {
	j.Job.Override = true
	j, effects, err := confirmed(j, e)
	return j, append([]Effect{do(DoStop)}, effects...), err
}

// givenUp: trial -> rolling-back.
func givenUp(j Journal, e Event, reason string) (Journal, []Effect, error) {
	j, effects := goBack(j, e.Facts, reason)
	return j, append([]Effect{do(DoStop)}, effects...), nil
}

// confirmed: trial -> idle(success). The journal is written first, as it is: that
// the new system can put on record what it decides is what it has to show last.
func confirmed(j Journal, e Event) (Journal, []Effect, error) {
	first := saved(j)
	j, effects := confirm(j, e.Facts)
	return j, append([]Effect{first}, effects...), nil
}

func confirm(j Journal, f Facts) (Journal, []Effect) {
	job := *j.Job
	r := result(j, f)
	r.Outcome, r.Override = Success, job.Override
	r.Message = fmt.Sprintf("slot %s is confirmed", job.Target)
	if job.Override {
		r.Message = fmt.Sprintf("slot %s was confirmed by hand, not by the health checks", job.Target)
	}
	if job.Permit != "" {
		r.Message += "; it went back by permit " + job.Permit
	}
	first := []Effect{
		// Commit point 2: from this one write on, the new system stays. Then the
		// second copy is made alike.
		applied(commit2(j)),
		{Kind: DoFloors, Job: &job},
		{Kind: DoSlots, Job: &job},
		{Kind: DoAllow, Job: &job},
		{Kind: DoOwe, Job: &job}, // in time for a cut before the migration has begun
	}
	j, effects := closed(j, r, append(first, do(DoClean), do(DoSettle)))
	// After the journal, and so after commit point 2: no system that is given up
	// has migrated anything.
	return j, append(effects, do(DoMigrate))
}

// commit2 is the change that confirms the target.
func commit2(j Journal) bootctl.Change {
	return bootctl.Change{Primary: j.Job.Target, Trial: bootctl.TrialEnd, BothCopies: true}
}

// rollback is the change that sends the device back to the source.
func rollback(j Journal) bootctl.Change {
	return bootctl.Change{Primary: j.Job.Source, Trial: bootctl.TrialEnd, Bad: []bootctl.Slot{j.Job.Target}}
}

// goBack: trial -> rolling-back, if there is a slot to go back to.
func goBack(j Journal, f Facts, reason string) (Journal, []Effect) {
	j = j.clone()
	known := j.Job.Reason != ""
	if !known {
		j.Job.Reason = clip(cmp.Or(reason, "no reason was given")) // its being there tells that there was a verdict
	}
	if untraceable(j, f) {
		// Nothing says that the other slot holds a system, and nothing says that it
		// does not. That is not ours to make primary; but each reboot costs a try, and
		// when none is left, the bootloader falls back to it.
		j.State = StateTrial
		return j, []Effect{saved(j), do(DoReboot)}
	}
	if why := noWayBack(j, f); why != "" {
		if j.State != StateRollingBack {
			j.State = StateTrial // it runs, and it is not confirmed
		}
		return j, []Effect{saved(j), do(DoSettle),
			alarm("The new system in slot %s was judged bad (%s), but it stays: %s.", j.Job.Target, j.Job.Reason, why)}
	}
	if known && j.State == StateRollingBack && j.Job.BootID == f.BootID && f.BootID != "" {
		// The reboot did not come about yet, and this is on record.
		return j, []Effect{applied(rollback(j)), do(DoReboot)}
	}
	if j.Job.Rollbacks >= f.MaxAttempts {
		return j, []Effect{saved(j), alarm("Slot %s was rolled back %d times and is started still: check the boot environment (%s).",
			j.Job.Target, j.Job.Rollbacks, j.Job.Reason)}
	}
	j.State, j.Job.BootID = StateRollingBack, f.BootID
	j.Job.Rollbacks++
	return j, []Effect{saved(j), applied(rollback(j)), do(DoReboot)}
}

// noWayBack tells why the source is no slot to go back to, or "".
func noWayBack(j Journal, f Facts) string {
	switch {
	case f.Unreadable:
		return "the boot environment cannot be read"
	case f.Boot.IsBad(j.Job.Source):
		return fmt.Sprintf("slot %s is marked bad", j.Job.Source)
	case !j.Job.SourceConfirmed:
		return fmt.Sprintf("slot %s was never confirmed", j.Job.Source)
	}
	return ""
}
