// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// updated is a world in which version 2 was installed and is on trial, and the
// life in which it is confirmed.
func updated(t *testing.T, w *world, change func(*Options, *engine)) *life {
	t.Helper()
	l := start(t, w, nil)
	if _, err := l.Install(l.ctx, ref, InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	l.reach(StatePendingReboot)
	l.end()
	return start(t, w, change)
}

// TestMigrationFails: what is confirmed stays, the failure is where people look,
// and the next start tries again.
func TestMigrationFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		broken := func(o *Options, _ *engine) {
			o.Migrate = func(context.Context, Migration) error { w.hooks++; return errors.New("disk full") }
		}
		l := updated(t, w, broken)
		for n := range 2 { // and again
			s := l.reach(StateIdle)
			if s.Last.Outcome != Success || s.Last.Error != NameNotMigrated || !strings.HasSuffix(s.Last.Message, "is confirmed; but the data were not migrated: disk full") {
				t.Errorf("last result is %+v", s.Last)
			}
			if s.Booted != "b" || s.Primary != "b" || s.Trial || len(s.Bad) > 0 {
				t.Errorf("ended on slot %s, primary %s, trial %v, bad %v", s.Booted, s.Primary, s.Trial, s.Bad)
			}
			if p := strings.Join(s.Problems, "\n"); !strings.Contains(p, "were not migrated: disk full") {
				t.Errorf("problems are %q", p)
			}
			if due := l.store.data.Due; w.hooks != n+1 || due == nil || due.Failures != n+1 || due.Reason != "disk full" {
				t.Errorf("tried %d times, on record: %+v", w.hooks, due)
			}
			l.end()
			if n == 0 {
				l = startOn(t, w, l.m, broken)
			}
		}
		w.hooks = 0
		l = startOn(t, w, l.m, nil)
		l.reach(StateIdle)
		time.Sleep(time.Minute)
		s := l.reach(StateIdle)
		if s.Last.Error != "" || s.Last.Message != "slot b is confirmed" || len(s.Problems) > 0 || w.form != "2" || l.store.data.Due != nil {
			t.Errorf("last result is %+v, problems %q, data those of version %s, record %+v", s.Last, s.Problems, w.form, l.store.data)
		}
		if h, _ := l.History(0); len(h) != 1 || h[0] != *s.Last {
			t.Errorf("history is %+v", h)
		}
		l.end()
		l = startOn(t, w, l.m, nil)
		defer l.end()
		time.Sleep(time.Minute)
		if w.hooks != 1 {
			t.Errorf("migrated %d times after it was done", w.hooks)
		}
	})
}

// TestMigrationInterrupted: a daemon that is stopped, or killed, in a migration
// begins it again, and updates wait for it.
func TestMigrationInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		l := updated(t, w, func(o *Options, _ *engine) {
			o.Migrate = func(ctx context.Context, _ Migration) error { w.hooks++; <-ctx.Done(); return ctx.Err() }
		})
		s := l.reach(StateIdle)
		if !s.Migrating || !strings.Contains(strings.Join(s.Problems, "\n"), "being migrated to version 2;") || s.Last.Outcome != Success || s.Last.Error != "" {
			t.Errorf("last result is %+v, problems %q", s.Last, s.Problems)
		}
		_, err := l.Install(l.ctx, ref, InstallOptions{})
		wantName(t, "Install in a migration", err, NameBusy)
		l.end()
		if w.hooks != 1 || l.store.data.Due == nil || l.store.data.Due.Failures != 0 {
			t.Errorf("tried %d times, on record: %+v", w.hooks, l.store.data.Due)
		}
		l = startOn(t, w, l.m, nil)
		defer l.end()
		time.Sleep(time.Minute)
		if s := l.reach(StateIdle); w.form != "2" || s.Migrating {
			t.Errorf("data are those of version %s, problems %q", w.form, s.Problems)
		}
	})
}

// TestMigrationElsewhere: the other slot does not do what this one owes, and what
// is overwritten owes nothing.
func TestMigrationElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		l := updated(t, w, func(o *Options, _ *engine) {
			o.Migrate = func(context.Context, Migration) error { return errors.New("disk full") }
		})
		l.reach(StateIdle)
		l.end()
		setEnv("boot_slot", "a")(w, nil) // a person goes back
		w.lastSure, w.hooks = "a", 0
		l = start(t, w, nil)
		defer l.end()
		time.Sleep(time.Minute)
		if d := l.store.data; w.hooks > 0 || d.Due == nil || d.Release.Version != "1" {
			t.Errorf("slot a migrated %d times, record %+v", w.hooks, d)
		}
		if _, err := l.Install(l.ctx, ref, InstallOptions{Retry: true}); err != nil {
			t.Fatal(err)
		}
		l.reach(StatePendingReboot)
		if d := l.store.data; d.Due != nil || d.Release.Version != "1" {
			t.Errorf("record is %+v after slot b was overwritten", d)
		}
	})
}

// TestMigrationWithoutHook: the record goes on, for a later release that has a hook.
func TestMigrationWithoutHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		l := updated(t, w, func(o *Options, _ *engine) { o.Migrate, o.BuildID = nil, "build-2" })
		defer l.end()
		s := l.reach(StateIdle)
		if d := l.store.data; d.Due != nil || d.Release != (Origin{"2", 20, "build-2"}) || len(s.Problems) > 0 {
			t.Errorf("record is %+v, problems %q", d, s.Problems)
		}
	})
}
