// SPDX-License-Identifier: Apache-2.0

package update

import (
	"fmt"
	"slices"

	"github.com/updaterd/updaterd/bootctl"
)

// A Plan is what a start has to do.
type Plan struct {
	// Rule names the row of docs/state-machine.md.
	Rule string
	// Journal is the one that stands once all effects are done.
	Journal Journal
	Effects []Effect
	// Problem, unless "", is a sentence about what a person has to mend.
	Problem string
}

// Reconcile brings the journal and the boot environment together at a start:
// the boot environment says what is, the journal says why. It is pure and
// total, and doing a part of its effects and then starting again leads to the
// same end. A journal that is absent, damaged or newer counts as an idle one.
func Reconcile(j Journal, f Facts) Plan {
	j = j.clone()
	known := slices.Contains(States(), j.State)
	switch {
	case f.Unreadable:
		return hold(j, "hold: environment unreadable", "The boot environment cannot be read: nothing goes on until it is mended and updaterd is started again.")
	case !f.Booted.Valid():
		return hold(j, "hold: booted slot unproven", "")
	case !known || j.State == StateIdle || j.Job == nil:
		j.State, j.Job = StateIdle, nil
		return reconcileIdle(j, f)
	case f.Booted == j.Job.Target:
		return reconcileOnTarget(j, f)
	case f.Booted == j.Job.Source:
		return reconcileOnSource(j, f)
	}
	return hold(j, "hold: booted slot unproven", "")
}

// hold leaves everything as it is.
func hold(j Journal, rule, problem string) Plan {
	return Plan{Rule: rule, Journal: j, Problem: problem}
}

// steady reports that slot is what starts next, for good.
func (f Facts) steady(slot bootctl.Slot) bool {
	return !f.Boot.Trial && f.Boot.Primary == slot && !f.Boot.IsBad(slot)
}

// onTrial reports that slot is what starts next, on trial.
func (f Facts) onTrial(slot bootctl.Slot) bool {
	return f.Boot.Trial && f.Boot.Primary == slot && !f.Boot.IsBad(slot)
}

// reconcileIdle: the journal knows of nothing in hand.
func reconcileIdle(j Journal, f Facts) Plan {
	booted, primary := f.Booted, f.Boot.Primary
	switch {
	case f.steady(booted):
		if slices.Contains(f.Confirmed, booted) {
			return Plan{Rule: "idle", Journal: j, Effects: f.owed()}
		}
		job := Job{Target: booted}
		return Plan{Rule: "idle", Journal: j, Effects: append([]Effect{{Kind: DoRemember, Job: &job}}, f.owed()...)}
	case f.onTrial(booted):
		// The journal was lost, or somebody else began the trial: it still has to
		// be judged, or the bootloader would fall back from a good system.
		j = adopt(j, f, booted.Other(), booted)
		j.State = StateTrial
		return Plan{Rule: "adopt trial", Journal: j, Effects: []Effect{saved(j), firstCheck()},
			Problem: fmt.Sprintf("Slot %s is on trial, and the journal does not know why.", booted)}
	case primary.Valid() && f.onTrial(primary):
		j = adopt(j, f, booted, primary)
		j.State = StatePendingReboot
		return Plan{Rule: "adopt pending reboot", Journal: j, Effects: []Effect{saved(j)},
			Problem: fmt.Sprintf("The next start is a trial of slot %s, and the journal does not know why.", primary)}
	case f.Boot.IsBad(booted):
		return hold(j, "idle: booted slot is bad",
			fmt.Sprintf("Slot %s runs but is marked bad: mark it good, or reboot.", booted))
	case !primary.Valid() || f.Boot.IsBad(primary):
		// Nothing but the booted slot would be started: say so plainly.
		return Plan{Rule: "idle: primary is bad", Journal: j, Effects: []Effect{
			applied(bootctl.Change{Primary: booted, Trial: bootctl.TrialEnd, BothCopies: true})}}
	}
	return hold(j, "idle: booted differs from primary",
		fmt.Sprintf("Slot %s runs although slot %s is primary: slot %s could not be loaded, or was selected since. Reboot, or mark slot %s good.",
			booted, primary, primary, booted))
}

// adopt makes a job of a trial that the journal does not know.
func adopt(j Journal, f Facts, source, target bootctl.Slot) Journal {
	j.LastID++
	j.Job = &Job{ID: j.LastID, Source: source, Target: target, Adopted: true, Attempts: 1, BootID: f.BootID,
		SourceConfirmed: slices.Contains(f.Confirmed, source)}
	return j
}

// reconcileOnTarget: the system that runs is the job's target.
func reconcileOnTarget(j Journal, f Facts) Plan {
	job := j.Job
	switch j.State {
	case StateDownloading, StateInstalling:
		return abandon(j, f, fmt.Sprintf("slot %s was to be overwritten, but the device runs from it now", job.Target))
	case StateRollingBack:
		if f.steady(job.Target) {
			job.Override = true
			j, effects := confirm(j, f)
			return Plan{Rule: "confirmed while rolling back", Journal: j, Effects: effects}
		}
		j, effects := goBack(j, f, job.Reason)
		return Plan{Rule: "roll back again", Journal: j, Effects: effects}
	}
	// installed, pending-reboot or trial
	switch {
	case f.steady(job.Target):
		// A cut after commit point 2; or, without a trial of ours, by hand.
		job.Override = job.Override || j.State != StateTrial
		j, effects := confirm(j, f)
		return Plan{Rule: "finish confirming", Journal: j, Effects: effects}
	case !f.onTrial(job.Target):
		j, effects := goBack(j, f, calledOff)
		return Plan{Rule: "environment says no", Journal: j, Effects: effects}
	case job.Cancelling:
		j, effects := goBack(j, f, "cancelled on request, just before the reboot")
		return Plan{Rule: "cancelled too late", Journal: j, Effects: effects}
	case job.Override:
		// The override was recorded, then came a cut before commit point 2.
		j, effects := confirm(j, f)
		return Plan{Rule: "finish override", Journal: j, Effects: effects}
	}
	rule := "trial"
	if j.State == StateTrial {
		rule = "trial goes on"
		if job.BootID == f.BootID { // only the daemon was started again
			return Plan{Rule: rule, Journal: j, Effects: []Effect{do(DoCheck)}}
		}
	}
	j.State, job.BootID = StateTrial, f.BootID
	return Plan{Rule: rule, Journal: j, Effects: []Effect{saved(j), firstCheck()}}
}

// firstCheck is the check that each run of the kernel has once, because the journal
// is written before.
func firstCheck() Effect { return Effect{Kind: DoCheck, First: true} }

// reconcileOnSource: the system that runs is the one that began the job.
func reconcileOnSource(j Journal, f Facts) Plan {
	job := j.Job
	sameBoot := job.BootID == f.BootID
	flipped := f.Boot.Primary == job.Target && !f.Boot.IsBad(job.Target)
	switch j.State {
	case StateDownloading:
		if !f.steady(job.Source) {
			return abandon(j, f, fmt.Sprintf("slot %s is no longer what the boot environment starts: it was changed by somebody else", job.Source))
		}
		return resume(j, f, do(DoDownload))
	case StateInstalling:
		return resume(j, f, reverted(j, f), do(DoInstall))
	case StateInstalled:
		switch {
		case flipped && !sameBoot:
			return fellBack(j, f)
		case flipped: // a cut after commit point 1
			j.State = StatePendingReboot
			effects := []Effect{saved(j)}
			if job.Options.Reboot {
				effects = append(effects, do(DoReboot))
			}
			return Plan{Rule: "finish activating", Journal: j, Effects: effects}
		case job.Options.KeepInstalled:
			return Plan{Rule: "installed", Journal: j}
		}
		job.BootID = f.BootID
		return resume(j, f, do(DoVerify))
	case StatePendingReboot:
		switch {
		case job.Cancelling:
			return taken(j, f, "finish cancelling", cancelled())
		case !sameBoot:
			return fellBack(j, f)
		case !flipped:
			return taken(j, f, "activation undone", Result{Outcome: Failed, Error: NameBadState,
				Message: fmt.Sprintf("the boot environment no longer starts slot %s: it was changed by somebody else", job.Target)})
		case job.Options.Reboot:
			return Plan{Rule: "pending reboot", Journal: j, Effects: []Effect{do(DoReboot)}}
		}
		return Plan{Rule: "pending reboot", Journal: j}
	case StateRollingBack:
		if job.Cancelling {
			return taken(j, f, "finish cancelling", cancelled())
		}
		return rolledBack(j, f, "rolled back", job.Reason)
	}
	return fellBack(j, f) // trial
}

// resume goes on with the work, if that did not fail to get anywhere too often.
// What is lost with a cut before the journal is written is one count.
func resume(j Journal, f Facts, work ...Effect) Plan {
	if j.Job.Paused {
		return Plan{Rule: "paused", Journal: j}
	}
	if j.State == StateDownloading && j.Job.BootID != f.BootID {
		// A device that is switched on and off out of coverage has not failed,
		// and what it fetched was paid for. Only crashes in one run of the kernel count.
		j.Job.BootID = f.BootID
		return Plan{Rule: "resume", Journal: j, Effects: append([]Effect{saved(j)}, work...)}
	}
	if j.Job.Attempts >= f.MaxAttempts {
		r := result(j, f)
		r.Outcome, r.Error = Failed, NameInternal
		r.Message = fmt.Sprintf("interrupted %d times while %s without getting any further", j.Job.Attempts, j.State)
		job := *j.Job
		steps := []Effect{{Kind: DoCount, Job: &job}, do(DoClean)}
		if j.State != StateDownloading {
			steps = append([]Effect{reverted(j, f)}, steps...)
		}
		j, effects := closed(j, r, steps)
		return Plan{Rule: "attempts spent", Journal: j, Effects: effects}
	}
	j.Job.Attempts++
	return Plan{Rule: "resume", Journal: j, Effects: append([]Effect{saved(j)}, work...)}
}

// abandon ends a job that the boot environment contradicts, and goes on as if idle.
func abandon(j Journal, f Facts, why string) Plan {
	r := result(j, f)
	r.Outcome, r.Error, r.Message = Failed, NameBadState, why
	j, effects := closed(j, r, []Effect{do(DoClean)})
	p := reconcileIdle(j, f)
	return Plan{Rule: "abandon, then " + p.Rule, Journal: p.Journal, Effects: append(effects, p.Effects...), Problem: p.Problem}
}

// taken ends a job whose target is not to be started after all.
func taken(j Journal, f Facts, rule string, how Result) Plan {
	b := reverted(j, f)
	j, effects, _ := ended(j, Event{Facts: f}, how, b, do(DoClean))
	return Plan{Rule: rule, Journal: j, Effects: effects}
}

// fellBack ends a job whose trial was ended by the bootloader, not by us.
func fellBack(j Journal, f Facts) Plan {
	job := j.Job
	if !f.Boot.Trial && f.Boot.IsBad(job.Target) {
		return rolledBack(j, f, "fell back", fallBackReason(j))
	}
	rule, reason := "started the source", fmt.Sprintf("the device started slot %s again before the new system was judged", job.Source)
	if f.onTrial(job.Target) {
		rule, reason = "not loaded", fmt.Sprintf("the bootloader could not load the new system from slot %s", job.Target)
	}
	// From what the boot environment will say after the next step, neither the
	// reason nor, in state installed, that there was a trial could be told: the
	// journal has to know both before.
	if j.State == StateInstalled {
		j.State = StatePendingReboot
	}
	if job.Reason == "" {
		job.Reason = reason
	}
	first := saved(j)
	p := rolledBack(j, f, rule, job.Reason)
	p.Effects = append([]Effect{first}, p.Effects...)
	return p
}

// fallBackReason is why the bootloader gave the target up.
func fallBackReason(j Journal) string {
	job := j.Job
	if job.Reason != "" {
		return job.Reason
	}
	after, how := "", "it never got as far as starting updaterd, or could not write its records"
	if job.Tries > 0 {
		after = fmt.Sprintf(" after %d tries", job.Tries)
	}
	if j.State == StateTrial {
		how = "it started, then hung, crashed, was reset or could not write its records"
	}
	return fmt.Sprintf("the bootloader fell back%s: the new system did not confirm itself (%s)", after, how)
}

// rolledBack ends a job whose trial failed. All of it can be done twice; the
// deny-list comes before the journal, so that a cut between them loses nothing.
func rolledBack(j Journal, f Facts, rule, reason string) Plan {
	job := *j.Job
	r := result(j, f)
	r.Outcome, r.Error, r.Message = RolledBack, NameUnhealthy, reason
	steps := []Effect{reverted(j, f)}
	if job.Digest != "" {
		steps = append(steps, Effect{Kind: DoDeny, Job: &job})
	}
	j, effects := closed(j, r, append(steps, do(DoClean)))
	return Plan{Rule: rule, Journal: j, Effects: effects}
}
