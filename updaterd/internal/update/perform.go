// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/updaterd/updaterd/bootctl"
)

// handle lets the state machine decide on e and does what it says.
func (u *Updater) handle(ctx context.Context, e Event) error {
	e.Facts = u.facts()
	_, effects, err := next(u.j, e)
	if err != nil {
		return err
	}
	return u.perform(ctx, effects)
}

// perform does the effects in order. The first durable one that fails ends the
// list, and the state machine decides what is to be done about it, which may fail
// as well.
func (u *Updater) perform(ctx context.Context, effects []Effect) error {
	broke, err := u.tryAll(ctx, effects)
	if err == nil {
		return nil
	}
	first := &Error{Name: breakName(err), Err: err}
	for range 3 {
		e := Event{Kind: EventBroke, Facts: u.facts(), Broke: broke, Name: breakName(err), Reason: clip(err.Error())}
		_, more, nerr := next(u.j, e)
		if nerr != nil {
			return errors.Join(first, nerr)
		}
		if broke, err = u.tryAll(ctx, more); err == nil {
			return first
		}
		// Two durable steps failed in a row: the data partition or the boot
		// environment is gone. What was decided stands in this life; the next
		// start reconciles with what the media really hold.
		u.alarm("%v", err)
		if broke.Kind == DoJournal {
			u.j = broke.Journal.clone()
		}
	}
	return first
}

func (u *Updater) tryAll(ctx context.Context, effects []Effect) (Effect, error) {
	for _, fx := range effects {
		err := u.try(ctx, fx)
		if err == nil {
			continue
		}
		u.o.Log.Error("step", "effect", fx.String(), "err", err)
		if fx.durable() {
			return fx, err
		}
		u.alarm("%v", err)
	}
	return Effect{}, nil
}

// breakName is the stable name for a durable step that failed.
func breakName(err error) string {
	switch {
	case errors.Is(err, bootctl.ErrDamaged):
		return NameEnvironmentDamaged
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return NameNoSpace
	}
	return nameOf(err)
}

// try does one effect.
func (u *Updater) try(ctx context.Context, fx Effect) error {
	u.o.Log.Info("step", "effect", fx.String())
	switch s := &u.store; fx.Kind {
	case DoJournal:
		return u.save(*fx.Journal)
	case DoKeep:
		u.j = fx.Journal.clone()
	case DoApply:
		return u.applyPatiently(ctx, fx.Change)
	case DoForget:
		if err := put(s.files, fileSlots, &s.slots, s.slots.without(fx.Job.Target)); err != nil {
			return err
		}
		return put(s.files, fileData, &s.data, s.data.without(fx.Job.Target))
	case DoRemember:
		return put(s.files, fileSlots, &s.slots, s.slots.confirmed(fx.Job.Target))
	case DoFloors:
		return s.putFloors(u.floorsAfter(fx.Job), func(err error) { u.alarm("%v.", err) })
	case DoSlots:
		return put(s.files, fileSlots, &s.slots, s.slots.installed(fx.Job))
	case DoAllow:
		return put(s.files, fileDeny, &s.deny, s.deny.without(fx.Job.Digest))
	case DoDeny, DoCount:
		return put(s.files, fileDeny, &s.deny, s.deny.with(fx.Job, fx.Kind == DoDeny, fx.Result.Message, fx.Result.Time))
	case DoOwe:
		return u.owe(fx.Job)
	case DoMigrated:
		return put(s.files, fileData, &s.data, s.data.migrated())
	case DoUnmigrated:
		return put(s.files, fileData, &s.data, s.data.unmigrated(fx.Text))
	case DoReport:
		return s.report(*fx.Result)
	case DoClean:
		return u.o.Engine.Clean()
	case DoStop:
		u.stop()
	case DoSettle:
		u.o.Watchdog.Settled()
	case DoAlarm:
		u.alarm("%s", fx.Text)
	case DoReboot:
		return u.reboot(ctx)
	case DoDownload, DoInstall, DoVerify, DoCheck:
		u.begin(ctx, fx)
	case DoMigrate:
		if u.o.Migrate != nil && s.data.Due != nil {
			u.begin(ctx, fx)
		}
	default:
		return fmt.Errorf("internal error: effect %q", fx.Kind)
	}
	return nil
}

// How long a reboot out of a trial may take before it is asked for again: once it
// was refused, for instance because of an inhibitor lock, and once it was not.
const (
	refusedReboot = 10 * time.Second
	pendingReboot = 2 * time.Minute
)

// reboot asks for a reboot. The end of a trial that was given up must not depend
// on who cuts the power: it is asked for until it comes.
func (u *Updater) reboot(ctx context.Context) error {
	err := u.o.System.Reboot(ctx)
	if u.j.State == StateTrial || u.j.State == StateRollingBack {
		pause := pendingReboot
		if err != nil {
			pause = refusedReboot
		}
		u.overdue = time.After(pause)
	}
	return err
}

// save makes j the journal in force.
func (u *Updater) save(j Journal) error {
	j = j.clone()
	if j.State == StatePendingReboot && j.Job.Tries == 0 && u.status.Trial {
		j.Job.Tries = u.status.TriesLeft // how many starts the trial has, for the reason if it fails
	}
	if err := u.store.saveJournal(j); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if j.State == StateIdle {
		u.release, u.readBack, u.overdue = nil, time.Time{}, nil
		u.problem = ""
	}
	u.j = j
	return nil
}

// applyPatiently gives a medium that is busy or stumbles another chance.
func (u *Updater) applyPatiently(ctx context.Context, c bootctl.Change) error {
	for left := 2; ; left-- {
		err := u.apply(c)
		if err == nil || left == 0 || errors.Is(err, bootctl.ErrDamaged) || errors.Is(err, bootctl.ErrBadSlot) {
			return err
		}
		u.o.Log.Warn("change boot environment", "err", err, "tries left", left)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (u *Updater) apply(c bootctl.Change) error {
	err := u.o.Boot.Apply(c)
	u.refresh()
	if err != nil {
		return fmt.Errorf("change boot environment: %w", err)
	}
	return nil
}

// alarm adds a sentence to the problems that people see.
func (u *Updater) alarm(format string, args ...any) {
	const limit = 16
	text := clip(fmt.Sprintf(format, args...))
	u.o.Log.Error("alarm", "text", text)
	if !slices.Contains(u.alarms, text) {
		u.alarms = append(u.alarms, text)
		u.alarms = u.alarms[max(0, len(u.alarms)-limit):]
	}
}

// newEnvID is a random canary.
func newEnvID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
