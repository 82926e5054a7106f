// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/updaterd/updaterd/bootctl"
)

// TestDeadlineIsKeptWithoutTheChecks: checks that do not end are no way to stay.
func TestDeadlineIsKeptWithoutTheChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		l := start(t, w, nil)
		l.Install(l.ctx, ref, InstallOptions{})
		l.reach(StatePendingReboot)
		l.end()
		release := make(chan struct{})
		before := time.Now()
		l = start(t, w, func(o *Options, _ *engine) { o.Health = deaf(release) })
		defer l.end()
		if s := l.Snapshot(); s.State != StateTrial || !s.Trial || s.TriesLeft != 2 || s.Booted != "b" {
			t.Errorf("in trial: %+v", s)
		}
		if _, err := l.Mark(l.ctx, "bad", "a"); nameOf(err) != NameBadState {
			t.Errorf("the way back was marked bad: %v", err)
		}
		l.reach(StateRollingBack)
		if took := time.Since(before); took < time.Minute || took > 2*time.Minute {
			t.Errorf("it took %v", took)
		}
		if l.m.w.reboots != 1 || l.m.trial != 1 {
			t.Errorf("%d reboots, watchdog %d: it must not be settled before the reboot", w.reboots, l.m.trial)
		}
		wantName(t, "Mark good while rolling back", func() error { _, err := l.Mark(l.ctx, "good", "b"); return err }(), NameBadState)
		close(release)
	})
}

// deaf is a Health that ignores its context.
type deaf chan struct{}

func (d deaf) Check(context.Context, func()) error { <-d; return errors.New("late") }

// TestNoWayBackStaysAndAlarms: an unhealthy system stays if the other slot is no way out.
func TestNoWayBackStaysAndAlarms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.good["2"] = "unhealthy"
		l := start(t, w, nil)
		l.Install(l.ctx, ref, InstallOptions{})
		l.reach(StatePendingReboot)
		l.end()
		m, err := w.boot()
		if err != nil {
			t.Fatal(err)
		}
		setEnv("boot_bad", "a")(w, nil) // somebody else gave the old slot up
		w.faults = nil
		l = startOn(t, w, m, nil)
		defer l.end()
		time.Sleep(time.Hour)
		s := l.Snapshot()
		if s.State != StateTrial || w.reboots != 0 || !strings.Contains(strings.Join(s.Problems, "\n"), "slot a is marked bad") {
			t.Errorf("state %s, %d reboots, problems %q", s.State, w.reboots, s.Problems)
		}
		if message, err := l.Mark(l.ctx, "good", "b"); err != nil {
			t.Errorf("Mark = %q, %v", message, err)
		}
		if s := l.reach(StateIdle); s.Last.Outcome != Success || !s.Last.Override || l.m.trial > 0 {
			t.Errorf("last result is %+v, watchdog %d", s.Last, l.m.trial)
		}
	})
}

// TestLostJournalInTrial: the data partition is gone, and the trial is judged all the same.
func TestLostJournalInTrial(t *testing.T) {
	for _, behaviour := range []string{"healthy", "unhealthy"} {
		bubble(t, behaviour, func(t *testing.T) {
			w := newWorld()
			w.good["2"] = behaviour
			l := start(t, w, nil)
			l.Install(l.ctx, ref, InstallOptions{})
			l.reach(StatePendingReboot)
			l.end()
			w.data[fileJournal] = w.data[fileJournal][:20]
			l = start(t, w, nil)
			defer func() { l.end() }()
			if p := strings.Join(l.Snapshot().Problems, "\n"); !strings.Contains(p, "journal.json.corrupt") || !strings.Contains(p, "on trial") {
				t.Errorf("problems are %q", p)
			}
			if behaviour == "healthy" {
				if s := l.reach(StateIdle); s.Last.Outcome != Success || s.Primary != "b" || s.Trial {
					t.Errorf("%+v", s)
				}
				return
			}
			l.reach(StateRollingBack) // slots.json says that slot a was confirmed
			l.end()
			l = start(t, w, nil)
			if s := l.reach(StateIdle); s.Last.Outcome != RolledBack || s.Booted != "a" {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestTrialEndedBySomebodyElse: updater-bootctl needs no daemon, so the boot
// environment may have ended the trial while the checks were running.
func TestTrialEndedBySomebodyElse(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change bootctl.Change
		health error
		want   State
	}{
		{"confirmed, and unhealthy", bootctl.Change{Trial: bootctl.TrialEnd}, errors.New("unhealthy"), StateIdle},
		{"confirmed, and healthy", bootctl.Change{Trial: bootctl.TrialEnd}, nil, StateIdle},
		{"called off, and healthy", bootctl.Change{Primary: "a", Trial: bootctl.TrialEnd}, nil, StateRollingBack},
		{"marked bad, and healthy", bootctl.Change{Primary: "a", Trial: bootctl.TrialEnd, Bad: []bootctl.Slot{"b"}}, nil, StateRollingBack},
	} {
		bubble(t, tc.name, func(t *testing.T) {
			w := newWorld()
			l := start(t, w, nil)
			l.Install(l.ctx, ref, InstallOptions{})
			l.reach(StatePendingReboot)
			l.end()
			l = start(t, w, func(o *Options, _ *engine) {
				o.Health = check(func() error {
					w.judgedGood("2") // by whoever changes the environment
					if err := o.Boot.Apply(tc.change); err != nil {
						t.Error(err)
					}
					return tc.health
				})
			})
			defer func() { l.end() }()
			s := l.reach(tc.want)
			if tc.want == StateRollingBack {
				if s.Primary != "a" || s.Trial || w.reboots != 1 {
					t.Errorf("%+v, %d reboots", s, w.reboots)
				}
				return
			}
			if s.Primary != "b" || s.Trial || len(s.Bad) > 0 || s.Last.Outcome != Success || s.Last.Override != (tc.health != nil) {
				t.Errorf("%+v, last result %+v", s, s.Last)
			}
		})
	}
}

// check is a Health that is a function.
type check func() error

func (c check) Check(context.Context, func()) error { return c() }
