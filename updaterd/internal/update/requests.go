// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/updaterd/updaterd/bootctl"
)

// Ready is closed once Run has reconciled.
func (u *Updater) Ready() <-chan struct{} { return u.ready }

// Inspect verifies what is at ref, or without one what the channel offers, and
// tells what installing it would cost.
func (u *Updater) Inspect(ctx context.Context, ref string, opt InstallOptions) (*Release, error) {
	ref, pinned, err := u.resolve(ref)
	if err != nil {
		return nil, err
	}
	if err := checkRequest(ref, opt); err != nil {
		return nil, err
	}
	var target bootctl.Slot
	err = u.ask(ctx, func(context.Context) error {
		target = u.booted.Other()
		return u.bootedError()
	})
	if err != nil {
		return nil, err
	}
	r, err := u.inspect(ctx, ref, pinned, target, opt)
	if err != nil {
		return nil, err
	}
	err = u.ask(ctx, func(context.Context) error {
		_, err := u.acceptable(r, opt)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// inspect asks the engine. If pinned is not "", only the release with that digest
// will do, whoever signed another one.
func (u *Updater) inspect(ctx context.Context, ref, pinned string, target bootctl.Slot, opt InstallOptions) (*Release, error) {
	r, err := u.o.Engine.Inspect(ctx, ref, target, opt)
	if err == nil && pinned != "" && r.Digest != pinned {
		return nil, errorf(NameNotOffered, "%s holds version %s (%s), and the channel's metadata name %s; publish the bundle that they were made from, or metadata of this one",
			PublicRef(ref), r.Version, r.Digest, pinned)
	}
	return r, err
}

// Install starts a job; it returns once the release is verified and journalled.
// Without a ref it is what the channel offered at the last check, and nothing else.
func (u *Updater) Install(ctx context.Context, ref string, opt InstallOptions) (id uint64, err error) {
	ref, pinned, err := u.resolve(ref)
	if err != nil {
		return 0, err
	}
	if err := checkRequest(ref, opt); err != nil {
		return 0, err
	}
	var target bootctl.Slot
	err = u.ask(ctx, func(context.Context) error {
		target = u.booted.Other()
		return u.admissible()
	})
	if err != nil {
		return 0, err
	}
	// This may take long, so it is done beside the loop; what was found
	// admissible is looked at again afterwards.
	r, err := u.inspect(ctx, ref, pinned, target, opt)
	if err != nil {
		return 0, err
	}
	err = u.ask(ctx, func(run context.Context) error {
		if err := u.admissible(); err != nil {
			return err
		}
		permit, err := u.acceptable(r, opt)
		if err != nil {
			return err
		}
		if err := checkRelease(r, r.Digest, u.booted.Other()); err != nil {
			return err
		}
		u.release = r
		u.alarms = nil
		u.meter.reset()
		if err := u.handle(run, Event{Kind: EventInstall, Job: newJob(r, u.booted, opt, permit)}); err != nil {
			u.release = nil
			return err
		}
		id = u.j.LastID
		return nil
	})
	return id, err
}

func newJob(r *Release, source bootctl.Slot, opt InstallOptions, permit string) *Job {
	return &Job{Ref: r.Ref, Digest: r.Digest, Version: r.Version, Sequence: r.Sequence, Floor: r.Floor,
		TimeFloor: r.TimeFloor.UTC(), Mode: r.Mode, Images: slices.Clone(r.Images), Options: opt, Permit: permit,
		Source: source, Target: source.Other(), SourceConfirmed: true}
}

// checkRelease catches an engine that would work on something else than the
// journal says.
func checkRelease(r *Release, digest string, target bootctl.Slot) error {
	switch {
	case r.Digest != digest || digest == "":
		return errorf(NameSourceChanged, "%s holds release %q now, not %q", PublicRef(r.Ref), r.Digest, digest)
	case r.Target != target:
		return errorf(NameInternal, "internal error: the release is for slot %q, the job for slot %q", r.Target, target)
	case r.Mode != "store" && r.Mode != "stream":
		return errorf(NameInternal, "internal error: the release has mode %q", r.Mode)
	}
	return nil
}

func checkRequest(ref string, opt InstallOptions) error {
	switch {
	case ref == "" || len(ref) > 4096 || !utf8.ValidString(ref):
		return errorf(NameBadArgument, "reference %.100q is not an http(s) URL or an absolute path of at most 4096 bytes", ref)
	case !slices.Contains([]string{"", "auto", "store", "stream"}, opt.Mode):
		return errorf(NameBadArgument, "mode %q is not one of auto, store and stream", opt.Mode)
	}
	return nil
}

func (u *Updater) bootedError() error {
	if u.bootedErr == nil {
		return nil
	}
	return errorf(NameBootedSlotUnproven, "the slot this system runs from is not proven: %w", u.bootedErr)
}

// environmentError tells why the boot environment cannot be worked with.
func (u *Updater) environmentError() error {
	if u.statusErr != nil {
		return errorf(NameEnvironmentDamaged, "the boot environment cannot be used: %w", u.statusErr)
	}
	return nil
}

// canaryError tells why the environment is not proven to be the bootloader's.
func (u *Updater) canaryError() error {
	switch have, want := u.o.System.EnvID(), u.status.EnvID; {
	case u.o.WaiveEnvID || u.statusErr != nil || u.status.Proven || have != "" && have == want:
		return nil
	case have == "":
		return errorf(NameEnvironmentUnproven, "it is not proven that the bootloader reads the boot environment that updaterd writes: "+
			"reboot once; if this stays, fw_env.config names another place, or the boot commands neither add updaterd.env_id to the kernel command line nor count every start")
	default:
		return errorf(NameEnvironmentUnproven, "it is not proven that the bootloader reads the boot environment that updaterd writes: "+
			"the kernel command line says %q, the environment %q; reboot once; if this stays, fw_env.config names another place", have, want)
	}
}

// admissible tells why no update may begin now.
func (u *Updater) admissible() error {
	if u.j.State != StateIdle || u.migrating() != "" {
		return badState(u.j, Event{Kind: EventInstall})
	}
	u.refresh()
	for _, err := range []error{u.bootedError(), u.environmentError(), u.canaryError()} {
		if err != nil {
			return err
		}
	}
	if len(u.status.Problems) > 0 {
		return errorf(NameEnvironmentUnproven, "the boot environment would not make a trial safe: %s", strings.Join(u.status.Problems, "; "))
	}
	if f := u.facts(); !f.steady(u.booted) {
		return errorf(NameBadState, "slot %s runs, but it is not what the boot environment starts for good; reboot, or mark slot %s good", u.booted, u.booted)
	}
	return nil
}

// acceptable tells why r may not be installed here, though it is genuine, or which
// permit lets the device go back to it.
func (u *Updater) acceptable(r *Release, opt InstallOptions) (permit string, err error) {
	if permit, err = u.allowed(r, opt, u.effective().Sequence); err != nil {
		return "", err
	}
	d, known := u.store.deny.find(r.Digest)
	if !known || opt.Retry || !d.Bad && d.Failures < u.o.MaxAttempts {
		return permit, nil
	}
	return "", errorf(NameKnownBad, "version %s failed on this device (%d times, the last one on %s): %s; install it with the option retry if you want it still",
		r.Version, d.Failures, d.Time.Format("2006-01-02"), d.Reason)
}

// request hands an event about job id to the state machine.
func (u *Updater) request(id uint64, kind EventKind) error {
	return u.ask(context.Background(), func(ctx context.Context) error {
		if u.j.Job == nil || u.j.Job.ID != id {
			return errorf(NameBadState, "job %d is not in hand", id)
		}
		u.refresh()
		return u.handle(ctx, Event{Kind: kind})
	})
}

// Cancel ends the job before the device has rebooted into it.
func (u *Updater) Cancel(id uint64) error { return u.request(id, EventCancel) }

// Pause halts downloading or installing until Resume, also across restarts.
func (u *Updater) Pause(id uint64) error { return u.request(id, EventPause) }

// Resume goes on after Pause.
func (u *Updater) Resume(id uint64) error {
	return u.ask(context.Background(), func(ctx context.Context) error {
		if u.j.Job == nil || u.j.Job.ID != id {
			return errorf(NameBadState, "job %d is not in hand", id)
		}
		if u.work != nil {
			return nil // it runs
		}
		u.refresh()
		return u.handle(ctx, Event{Kind: EventResume})
	})
}

// Activate makes an installed release what the device starts next, on trial.
// If the target was not read back just now, that is done first.
func (u *Updater) Activate(ctx context.Context) error {
	var w *work
	err := u.ask(ctx, func(run context.Context) error {
		if u.j.State == StateInstalled && u.work != nil {
			return errorf(NameBusy, "the target is being read back already")
		}
		u.refresh()
		if err := u.environmentError(); err != nil && u.j.State == StateInstalled {
			return err
		}
		if err := u.handle(run, Event{Kind: EventActivate, Fresh: u.fresh()}); err != nil {
			return err
		}
		w = u.work
		return nil
	})
	if err != nil || w == nil {
		return err
	}
	select {
	case <-w.handled:
		return w.err
	case <-ctx.Done():
		return &Error{Name: NameCancelled, Message: "no longer waiting for the activation, which goes on", Err: ctx.Err()}
	}
}

// Reboot starts the reboot into the trial, or the one that completes a roll-back.
func (u *Updater) Reboot(ctx context.Context) error {
	return u.ask(ctx, func(run context.Context) error {
		_, effects, err := next(u.j, Event{Kind: EventReboot, Facts: u.facts()})
		if err != nil {
			return err
		}
		for _, fx := range effects {
			if err := u.try(run, fx); err != nil {
				return err
			}
		}
		return nil
	})
}

// Mark records a person's verdict, "good" or "bad", on a slot and returns a
// sentence that says what was done. "good" on the booted slot in trial is the
// override of the health checks; "bad" on it rolls back.
func (u *Updater) Mark(ctx context.Context, verdict string, slot bootctl.Slot) (message string, err error) {
	if verdict != "good" && verdict != "bad" {
		return "", errorf(NameBadArgument, "verdict %q is neither good nor bad", verdict)
	}
	if !slot.Valid() {
		return "", errorf(NameBadArgument, "slot %q is neither a nor b", slot)
	}
	err = u.ask(ctx, func(run context.Context) error {
		if err := u.bootedError(); err != nil {
			return err
		}
		u.refresh()
		if err := u.environmentError(); err != nil {
			return err
		}
		if verdict == "good" {
			message, err = u.markGood(run, slot)
		} else {
			message, err = u.markBad(run, slot)
		}
		return err
	})
	return message, err
}

func (u *Updater) markGood(ctx context.Context, slot bootctl.Slot) (string, error) {
	switch f := u.facts(); {
	case slot != u.booted:
		return "", errorf(NameBadState, "slot %s does not run: a slot is marked good by the system that runs from it", slot)
	case u.j.State == StateTrial, u.j.State == StateRollingBack:
		if err := u.handle(ctx, Event{Kind: EventMarkGood}); err != nil {
			return "", err
		}
		return fmt.Sprintf("slot %s is confirmed by hand; the health checks were overridden", slot), nil
	case u.j.State == StatePendingReboot:
		return "", errorf(NameBadState, "slot %s is the one to return to already; cancel the job to stay on it", slot)
	case f.steady(slot):
		return fmt.Sprintf("slot %s is confirmed already", slot), nil
	}
	err := u.applyPatiently(ctx, bootctl.Change{Primary: slot, Trial: bootctl.TrialEnd, NotBad: []bootctl.Slot{slot}, BothCopies: true})
	if err != nil {
		return "", err
	}
	u.problem = ""
	job := Job{Target: slot}
	if err := u.try(ctx, Effect{Kind: DoRemember, Job: &job}); err != nil {
		return "", err
	}
	return fmt.Sprintf("slot %s is primary and confirmed", slot), nil
}

func (u *Updater) markBad(ctx context.Context, slot bootctl.Slot) (string, error) {
	if slot == u.booted && u.j.State == StateTrial {
		if why := noWayBack(u.j, u.facts()); why != "" {
			return "", errorf(NameBadState, "slot %s cannot be marked bad: %s", slot, why)
		}
		if err := u.handle(ctx, Event{Kind: EventMarkBad, Reason: "marked bad by hand"}); err != nil {
			return "", err
		}
		return fmt.Sprintf("slot %s is marked bad; the device reboots into slot %s", slot, slot.Other()), nil
	}
	switch u.j.State {
	case StatePendingReboot, StateTrial, StateRollingBack:
		return "", errorf(NameBadState, "slot %s cannot be marked bad in state %s: cancel the job or judge the trial", slot, u.j.State)
	}
	switch other := slot.Other(); {
	case slot == u.booted || slot == u.status.Primary:
		return "", errorf(NameBadState, "slot %s cannot be marked bad: it is what runs or starts next; install another release instead", slot)
	case u.status.IsBad(other):
		return "", errorf(NameBadState, "slot %s cannot be marked bad: slot %s is bad, and one must be left", slot, other)
	case u.status.IsBad(slot):
		return fmt.Sprintf("slot %s is marked bad already", slot), nil
	}
	if err := u.applyPatiently(ctx, bootctl.Change{Bad: []bootctl.Slot{slot}, BothCopies: true}); err != nil {
		return "", err
	}
	return fmt.Sprintf("slot %s is marked bad: the bootloader does not start it", slot), nil
}
