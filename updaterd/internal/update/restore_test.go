// SPDX-License-Identifier: Apache-2.0

package update

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
)

// What a restored environment says, in each state of the journal, on each slot,
// with all that may be confirmed: it never ends a trial, never loses the way
// back from one, and never lets a slot start that may be half written.
func TestRestoration(t *testing.T) {
	cases := 0
	for _, state := range append(States(), "") {
		for _, target := range []bootctl.Slot{"a", "b"} {
			for _, booted := range []bootctl.Slot{"a", "b"} {
				for _, confirmed := range [][]bootctl.Slot{nil, {"a"}, {"b"}, {"a", "b"}} {
					j := Journal{State: state}
					if state != StateIdle && state != "" {
						j.Job = &Job{ID: 1, Source: target.Other(), Target: target}
					}
					cases++
					c := restoration(j, booted, confirmed)
					name := fmt.Sprintf("%q, job %+v, booted %s, confirmed %v: %+v", state, j.Job, booted, confirmed, c)
					other := booted.Other()
					knownWhole := slices.Contains(confirmed, other)
					trial := c.Trial == bootctl.TrialBegin
					began := j.Job != nil && booted == target && state != StateDownloading && state != StateInstalling
					switch {
					case c.Primary != booted || !slices.Contains(c.NotBad, booted) || slices.Contains(c.Bad, booted) || !c.BothCopies:
						t.Errorf("%s: the slot that runs does not start next", name)
					case slices.Contains(c.Bad, other) == slices.Contains(c.NotBad, other):
						t.Errorf("%s: the other slot is neither bad nor good", name)
					case began && (!trial || slices.Contains(c.Bad, other)):
						t.Errorf("%s: the trial is lost, or the way back", name)
					case trial && !began && !knownWhole, !trial && slices.Contains(c.NotBad, other) && !knownWhole:
						t.Errorf("%s: a slot may start that may be half written", name)
					}
				}
			}
		}
	}
	if cases != 8*2*2*4 {
		t.Errorf("%d cases", cases)
	}
}

// lose destroys both copies.
func lose(w *world) {
	for i := range 2 {
		w.medium.Raw(i)[9] ^= 1
	}
}

// restoring configures the defaults of a factory.
func restoring(w *world) func(o *Options, _ *engine) {
	return func(o *Options, _ *engine) {
		o.Restore = func(change bootctl.Change) error {
			e := &uboot.Env{}
			for name, value := range ubootmodel.Factory("a") {
				if err := e.Set(name, value); err != nil {
					return err
				}
			}
			return uboot.New(w.medium).Restore(e, change, false)
		}
	}
}

func TestRestoresLostEnvironment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		m, err := w.boot()
		if err != nil {
			t.Fatal(err)
		}
		lose(w)
		// Without the configuration nothing is written.
		l := startOn(t, w, m, nil)
		_, err = l.Install(l.ctx, ref, InstallOptions{})
		wantName(t, "Install", err, NameEnvironmentDamaged)
		if !strings.Contains(err.Error(), "updater-bootctl restore") {
			t.Errorf("the error does not name the command: %v", err)
		}
		l.end()
		if _, err := uboot.New(w.medium).Status(); !errors.Is(err, bootctl.ErrDamaged) {
			t.Fatalf("Status = %v; want it damaged as before", err)
		}
		// With it, both copies are there again, and it is said.
		l = startOn(t, w, m, restoring(w))
		l.end()
		st, err := uboot.New(w.medium).Status()
		if err != nil || st.Primary != "a" || st.Trial || st.Copies != 2 {
			t.Errorf("Status = %+v, %v", st, err)
		}
		if p := l.Snapshot().Problems; !slices.ContainsFunc(p, func(s string) bool { return strings.Contains(s, "was restored from the defaults: slot a is primary") }) {
			t.Errorf("problems = %q; want it to be told", p)
		}
	})
}

// An environment that is lost in the middle of a trial is on trial again: the
// new system is judged, and the old one stays the way back.
func TestRestoresTrial(t *testing.T) {
	for name, verdict := range map[string]string{"good": "", "bad": "unhealthy"} {
		bubble(t, name, func(t *testing.T) {
			w := newWorld()
			l := start(t, w, nil)
			if _, err := l.Install(l.ctx, ref, InstallOptions{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			l.end()
			if st, err := uboot.New(w.medium).Status(); err != nil || !st.Trial || st.Primary != "b" {
				t.Fatalf("Status = %+v, %v; want slot b on trial", st, err)
			}
			m, err := w.boot()
			if err != nil || m.start.Slot != "b" {
				t.Fatalf("boot = %+v, %v", m, err)
			}
			w.good[m.version] = verdict
			lose(w)
			l = startOn(t, w, m, restoring(w))
			if st, err := uboot.New(w.medium).Status(); err != nil || !st.Trial || st.Primary != "b" || len(st.Bad) > 0 {
				t.Errorf("Status = %+v, %v; want slot b on trial, and a as the way back", st, err)
			}
			time.Sleep(time.Minute)
			l.end()
			st, err := uboot.New(w.medium).Status()
			if verdict == "" && (err != nil || st.Trial || st.Primary != "b") || verdict != "" && (err != nil || st.Primary != "a" || !st.IsBad("b")) {
				t.Errorf("judged %q: Status = %+v, %v", verdict, st, err)
			}
		})
	}
}
