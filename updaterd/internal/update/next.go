// SPDX-License-Identifier: Apache-2.0

package update

import (
	"fmt"
	"slices"
	"strings"

	"github.com/updaterd/updaterd/bootctl"
)

type cell struct {
	state State
	event EventKind
}

// next is the state machine: what follows from e while j is in force. It is
// pure. The effects are in the order in which they have to become durable, and
// the returned journal is the one that stands once all are done. An event that
// the state does not allow is an error with the name BadState.
func next(j Journal, e Event) (Journal, []Effect, error) {
	j = j.clone()
	if j.State != StateIdle && j.Job == nil {
		return j, nil, errorf(NameInternal, "internal error: state %s without a job", j.State)
	}
	if err := mustRunSource(j, e); err != nil {
		return j, nil, err
	}
	if j.Job != nil && j.Job.Paused && slices.Contains([]EventKind{EventProgressed, EventDownloaded, EventWritten}, e.Kind) {
		return j, nil, badState(j, e) // Pause waited until nothing ran any more
	}
	if e.Kind == EventBroke {
		if j, effects, ok := unrecorded(j, e); ok {
			return j, effects, nil
		}
	}
	switch (cell{j.State, e.Kind}) {
	case cell{StateIdle, EventInstall}:
		if e.Migrating {
			return j, nil, badState(j, e)
		}
		return begin(j, e)
	case cell{StateIdle, EventMigrated}, cell{StateIdle, EventUnmigrated}:
		return settled(j, e)

	case cell{StateDownloading, EventPause}, cell{StateInstalling, EventPause}:
		if j.Job.Paused {
			return j, nil, nil
		}
		j.Job.Paused = true
		return j, []Effect{saved(j), do(DoStop)}, nil
	case cell{StateDownloading, EventResume}:
		// A job that is not paused is started anew: it may have been held at start.
		j.Job.Paused = false
		return j, []Effect{do(DoStop), saved(j), do(DoDownload)}, nil
	case cell{StateInstalling, EventResume}:
		j.Job.Paused = false
		return j, []Effect{do(DoStop), reverted(j, e.Facts), saved(j), do(DoInstall)}, nil
	case cell{StateDownloading, EventProgressed}, cell{StateInstalling, EventProgressed}:
		if e.Mark <= j.Job.Mark {
			return j, nil, nil
		}
		j.Job.Mark, j.Job.Attempts = e.Mark, 1
		return j, []Effect{saved(j)}, nil

	case cell{StateDownloading, EventDownloaded}:
		return startInstalling(j, e)
	case cell{StateDownloading, EventCancel}:
		return ended(j, e, cancelled(), do(DoStop), do(DoClean))
	case cell{StateDownloading, EventFailed}:
		if e.Name == NameNetwork {
			// What came is kept: the same release from another address goes on from there.
			return ended(j, e, failed(e), do(DoStop))
		}
		return ended(j, e, failed(e), append(counted(j, e), do(DoClean))...)
	case cell{StateDownloading, EventBroke}:
		return ended(j, e, failed(e), do(DoStop), do(DoClean))

	case cell{StateInstalling, EventWritten}:
		return written(j, e)
	case cell{StateInstalling, EventCancel}:
		// The target stays bad: it is half written.
		return ended(j, e, cancelled(), do(DoStop), do(DoClean))
	case cell{StateInstalling, EventBroke}:
		return ended(j, e, failed(e), do(DoStop))
	case cell{StateInstalling, EventFailed}:
		// What is stored stays, so that the next try needs no network for it.
		return ended(j, e, failed(e), counted(j, e)...)

	case cell{StateInstalled, EventActivate}:
		if e.Fresh {
			return activated(j, e)
		}
		// The target is compared with the release once more, and the journal
		// learns in which run of the kernel, before commit point 1.
		j.Job.BootID, j.Job.Options.KeepInstalled = e.BootID, false
		return j, []Effect{saved(j), do(DoVerify)}, nil
	case cell{StateInstalled, EventVerified}:
		return activated(j, e)
	case cell{StateInstalled, EventFailed}:
		if blameless(e) {
			// The slot is complete; only its second reading could not begin.
			return j, []Effect{do(DoStop), alarm("The installed release could not be read back: %s. Activate it again later.", e.Reason)}, nil
		}
		return ended(j, e, failed(e), counted(j, e)...)
	case cell{StateInstalled, EventCancel}:
		// In the boot environment nothing changes here, unless an activation
		// broke halfway.
		return ended(j, e, cancelled(), do(DoStop), reverted(j, e.Facts), do(DoClean))
	case cell{StateInstalled, EventBroke}:
		return j, []Effect{alarm("The installed release could not be activated or cancelled: %s. Mend that, then do it again.", e.Reason)}, nil

	case cell{StatePendingReboot, EventReboot}:
		return j, []Effect{do(DoReboot)}, nil
	case cell{StatePendingReboot, EventCancel}:
		return cancelPending(j, e)
	case cell{StatePendingReboot, EventBroke}:
		// The next start does it again, too.
		return j, []Effect{alarm("The update could not be cancelled: %s. Mend that, then do it again.", e.Reason)}, nil

	case cell{StateTrial, EventHealthy}, cell{StateTrial, EventUnhealthy}:
		return judged(j, e)
	case cell{StateTrial, EventMarkGood}:
		return overridden(j, e)
	case cell{StateTrial, EventMarkBad}:
		return givenUp(j, e, e.Reason)
	case cell{StateTrial, EventBroke}:
		return j, []Effect{alarm("The trial cannot be ended: %s. Mark it good or bad again once that is mended, or reboot.", e.Reason)}, nil

	case cell{StateTrial, EventOverdue}:
		if j.Job.Reason != "" && untraceable(j, e.Facts) {
			return j, []Effect{do(DoReboot)}, nil
		}
		return j, nil, nil
	case cell{StateRollingBack, EventOverdue}:
		if !e.Unreadable && e.Facts.steady(j.Job.Target) {
			return j, nil, nil // somebody confirmed it meanwhile; the next start says so
		}
		return j, []Effect{do(DoReboot)}, nil

	case cell{StateRollingBack, EventReboot}:
		return j, []Effect{applied(rollback(j)), do(DoReboot)}, nil
	case cell{StateRollingBack, EventMarkGood}:
		return j, nil, errorf(NameBadState, "the roll-back to slot %s has begun; reboot to complete it", j.Job.Source)
	case cell{StateRollingBack, EventBroke}:
		if e.Broke.Kind == DoApply && len(e.Broke.Change.Bad) > 0 {
			// The trial still counts: either the next start rolls back again or the
			// bootloader falls back.
			return j, []Effect{do(DoReboot)}, nil
		}
		return j, nil, nil

	case cell{StateIdle, EventBroke}:
		return j, nil, nil
	}
	return j, nil, badState(j, e)
}

// mustRunSource refuses what would write a slot, or make one primary, while it
// is not certain that this system runs from the job's source slot.
func mustRunSource(j Journal, e Event) error {
	if j.Job == nil || e.Booted == j.Job.Source {
		return nil
	}
	switch (cell{j.State, e.Kind}) {
	case cell{StateDownloading, EventResume}, cell{StateInstalling, EventResume},
		cell{StateDownloading, EventDownloaded}, cell{StateInstalling, EventWritten},
		cell{StateInstalled, EventActivate}, cell{StateInstalled, EventVerified}, cell{StateInstalled, EventCancel},
		cell{StatePendingReboot, EventCancel}:
		return errorf(NameBootedSlotUnproven, "cannot %s: slot %s must be running, and it is not certain that it is", e.Kind, j.Job.Source)
	}
	return nil
}

func badState(j Journal, e Event) error {
	switch e.Kind {
	case EventInstall:
		if j.State == StateIdle {
			return errorf(NameBusy, "the data are being migrated to the running release; install again when that is done")
		}
		return errorf(NameBusy, "another update is %s; wait for it or cancel it", j.State)
	case EventProgressed, EventDownloaded, EventWritten, EventVerified, EventFailed, EventHealthy, EventUnhealthy, EventMigrated, EventUnmigrated, EventBroke, EventOverdue:
		return errorf(NameInternal, "internal error: %s in state %s", e.Kind, j.State)
	}
	hint := ""
	switch j.State {
	case StateIdle:
		hint = "; no update is in hand"
	case StateTrial:
		hint = "; the new system is on trial: mark it good or bad"
	case StateRollingBack:
		hint = "; the device is rolling back: reboot"
	case StatePendingReboot:
		hint = "; the new system is started by the next reboot: reboot or cancel"
	}
	return errorf(NameBadState, "cannot %s in state %s%s", e.Kind, j.State, hint)
}

// do is an effect that needs nothing.
func do(kind EffectKind) Effect { return Effect{Kind: kind} }

// saved replaces the journal with j as it is now.
func saved(j Journal) Effect {
	j = j.clone()
	return Effect{Kind: DoJournal, Journal: &j}
}

func applied(c bootctl.Change) Effect { return Effect{Kind: DoApply, Change: c} }

func alarm(format string, args ...any) Effect {
	return Effect{Kind: DoAlarm, Text: fmt.Sprintf(format, args...)}
}

// begin: idle -> downloading, or installing in stream mode.
func begin(j Journal, e Event) (Journal, []Effect, error) {
	if e.Job == nil {
		return j, nil, errorf(NameInternal, "internal error: install without a job")
	}
	job := *e.Job
	j.LastID++
	job.ID, job.Attempts = j.LastID, 1
	j.Job = &job
	if job.Mode == "stream" {
		return startInstalling(j, e)
	}
	j.State = StateDownloading
	return j, []Effect{saved(j), do(DoDownload)}, nil
}

// startInstalling: the boot environment bars the target, in both copies,
// before the journal allows the first block to be overwritten.
func startInstalling(j Journal, e Event) (Journal, []Effect, error) {
	j.State, j.Job.Mark = StateInstalling, 0
	job := *j.Job
	return j, []Effect{
		do(DoStop),
		reverted(j, e.Facts), // B: target bad, both copies
		{Kind: DoForget, Job: &job},
		saved(j), // J: installing
		do(DoInstall),
	}, nil
}

// reverted makes the source primary without a trial and the target bad, in
// both copies: no copy that may be lost later leads back to the target.
func reverted(j Journal, f Facts) Effect {
	c := bootctl.Change{Primary: j.Job.Source, Trial: bootctl.TrialEnd,
		Bad: []bootctl.Slot{j.Job.Target}, BothCopies: true}
	// The source runs, and the target will not: a source that somebody marked
	// bad is the only slot left to start.
	if f.Boot.IsBad(j.Job.Source) && f.Booted == j.Job.Source {
		c.NotBad = []bootctl.Slot{j.Job.Source}
	}
	return applied(c)
}

// written: installing -> installed, and on at once unless the caller keeps it there.
func written(j Journal, e Event) (Journal, []Effect, error) {
	j.State = StateInstalled
	j.Job.Stats, j.Job.BootID = e.Stats, e.BootID
	j.Job.Attempts, j.Job.Mark = 1, 0
	effects := []Effect{do(DoStop), saved(j)}
	if j.Job.Options.KeepInstalled {
		return j, effects, nil
	}
	j, more, err := activated(j, e)
	return j, append(effects, more...), err
}

// activated: installed -> pending-reboot.
func activated(j Journal, e Event) (Journal, []Effect, error) {
	job := j.Job
	effects := []Effect{
		do(DoStop),
		// Commit point 1: from this one write on, the next start is the trial.
		applied(bootctl.Change{Primary: job.Target, Trial: bootctl.TrialBegin, NotBad: []bootctl.Slot{job.Target}}),
	}
	j.State, job.BootID = StatePendingReboot, e.BootID
	effects = append(effects, saved(j))
	if job.Options.Reboot {
		effects = append(effects, do(DoReboot))
	}
	return j, effects, nil
}

// cancelPending: pending-reboot -> idle. The journal says that it is being
// cancelled first, so that a cut after it, whatever boots, ends the same.
func cancelPending(j Journal, e Event) (Journal, []Effect, error) {
	j.Job.Cancelling = true
	first := []Effect{saved(j), reverted(j, e.Facts)}
	return ended(j, e, cancelled(), append(first, do(DoClean))...)
}

// result is what is the same in every result of the job.
func result(j Journal, f Facts) Result {
	job := j.Job
	return Result{Job: job.ID, Version: job.Version, Digest: job.Digest, From: string(job.Source),
		To: string(job.Target), Time: f.Now, Stats: job.Stats}
}

// closed ends the job with r: the steps, the report, and the journal last.
func closed(j Journal, r Result, steps []Effect) (Journal, []Effect) {
	r.Message = clip(r.Message)
	for i := range steps {
		if steps[i].Kind == DoDeny || steps[i].Kind == DoCount {
			steps[i].Result = &r
		}
	}
	j.State, j.Job, j.Last = StateIdle, nil, &r
	return j, append(slices.Clip(steps), Effect{Kind: DoReport, Result: &r}, saved(j))
}

// ended closes the job after an event.
func ended(j Journal, e Event, how Result, steps ...Effect) (Journal, []Effect, error) {
	r := result(j, e.Facts)
	r.Outcome, r.Error, r.Message = how.Outcome, how.Error, how.Message
	j, effects := closed(j, r, steps)
	return j, effects, nil
}

func cancelled() Result {
	return Result{Outcome: Cancelled, Error: NameCancelled, Message: "cancelled on request"}
}

func failed(e Event) Result {
	return Result{Outcome: Failed, Error: e.Name, Message: e.Reason}
}

// blameless reports a failure in which the bundle had no part.
func blameless(e Event) bool {
	return slices.Contains([]string{NameNetwork, NameNoSpace, NameOverBudget, NameCancelled, NameNotPermitted}, e.Name)
}

// counted ends the work and counts the failure, unless the bundle had no part in it.
func counted(j Journal, e Event) []Effect {
	if blameless(e) {
		return []Effect{do(DoStop)}
	}
	job := *j.Job
	return []Effect{do(DoStop), {Kind: DoCount, Job: &job}}
}

// clip bounds a sentence that comes from outside.
func clip(s string) string {
	const limit = 500
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && s[cut]&0xC0 == 0x80 { // not within a character
		cut--
	}
	return s[:cut] + "…"
}
