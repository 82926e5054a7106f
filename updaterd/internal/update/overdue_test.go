// SPDX-License-Identifier: Apache-2.0

package update

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/updaterd/updaterd/bootctl"
)

// TestRebootRefused: a roll-back goes on asking for its reboot, also after the
// daemon was started again, and that is still the same roll-back.
func TestRebootRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := pending(t, schemes[0], "unhealthy")
		m, err := w.boot()
		if err != nil {
			t.Fatal(err)
		}
		for life := range 5 {
			m.refuse = errors.New("an inhibitor holds a lock")
			before := w.reboots
			l := startOn(t, w, m, nil)
			l.reach(StateRollingBack)
			time.Sleep(35 * time.Second)
			if n := w.reboots - before; n < 3 || n > 5 {
				t.Errorf("life %d: asked %d times; want it every 10 seconds", life, n)
			}
			if p := strings.Join(l.Snapshot().Problems, "\n"); !strings.Contains(p, "an inhibitor holds a lock") || strings.Contains(p, "started still") {
				t.Errorf("life %d: problems are %q", life, p)
			}
			if n := l.j.Job.Rollbacks; n != 1 {
				t.Errorf("life %d: %d roll-backs are on record", life, n)
			}
			l.end()
		}
		m.refuse = nil
		l := startOn(t, w, m, nil)
		before := w.reboots
		time.Sleep(30 * time.Second)
		if w.reboots != before {
			t.Errorf("asked %d times more, although the first was accepted", w.reboots-before)
		}
		if time.Sleep(2 * time.Minute); w.reboots != before+1 {
			t.Errorf("asked %d times more for a reboot that was accepted, and does not come; want once", w.reboots-before)
		}
		l.end()
		l = start(t, w, nil)
		defer l.end()
		if s := l.reach(StateIdle); s.Last.Outcome != RolledBack || s.Booted != "a" || len(w.faults) > 0 {
			t.Errorf("%+v, faults %q", s, w.faults)
		}
	})
}

// TestRebootNotNeeded: somebody confirms the system whose reboot is refused.
func TestRebootNotNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := pending(t, schemes[0], "unhealthy")
		m, err := w.boot()
		if err != nil {
			t.Fatal(err)
		}
		m.refuse = errors.New("an inhibitor holds a lock")
		l := startOn(t, w, m, nil)
		defer l.end()
		l.reach(StateRollingBack)
		w.judgedGood("2") // by a person
		if err := l.o.Boot.Apply(bootctl.Change{Primary: "b", Trial: bootctl.TrialEnd, NotBad: []bootctl.Slot{"b"}}); err != nil {
			t.Fatal(err)
		}
		before := w.reboots
		time.Sleep(time.Hour)
		if w.reboots != before {
			t.Errorf("asked %d times to reboot what is confirmed", w.reboots-before)
		}
	})
}

// TestRebootRefusedWithoutRecords: the same where a reboot is all that there is.
func TestRebootRefusedWithoutRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := pending(t, schemes[0], "unhealthy")
		m, err := w.boot()
		if err != nil {
			t.Fatal(err)
		}
		w.data, w.readOnly = map[string][]byte{}, true
		m.refuse = errors.New("an inhibitor holds a lock")
		l := startOn(t, w, m, nil)
		defer l.end()
		time.Sleep(45 * time.Second) // the checks take 10 of them
		if s := l.Snapshot(); w.reboots < 3 || w.reboots > 5 || s.State != StateTrial || !s.Trial || s.Primary != "b" {
			t.Errorf("asked %d times in 35 seconds, %+v; want it every 10 seconds, and nothing else", w.reboots, s)
		}
	})
}
