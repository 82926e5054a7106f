// SPDX-License-Identifier: Apache-2.0

package update

import (
	"errors"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/updaterd/updaterd/bootctl"
)

// pending is a device that installed version 2, and is about to start it.
func pending(t *testing.T, scheme, behaviour string) *world {
	t.Helper()
	w := newWorldOf(scheme)
	w.good["2"] = behaviour
	l := start(t, w, nil)
	if _, err := l.Install(l.ctx, ref, InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	l.reach(StatePendingReboot)
	l.end()
	return w
}

// TestTrialWithoutRecords: the new system cannot mount the data partition, which
// the old one could. Its trial comes to an end all the same, and the old system
// is there again.
func TestTrialWithoutRecords(t *testing.T) {
	edit := func(change func(*Journal)) func(*testing.T, *world) {
		return func(t *testing.T, w *world) {
			j, err := decodeJournal(w.data[fileJournal])
			if err != nil {
				t.Fatal(err)
			}
			change(&j)
			w.data[fileJournal] = encoded(t, j)
		}
	}
	for _, tc := range []struct {
		name     string
		mount    func(*testing.T, *world) // what version 2 finds
		writable bool
		stays    bool // if it is healthy
		starts   int  // of version 2 until it is given up
	}{
		{"missing", func(_ *testing.T, w *world) { w.data = map[string][]byte{} }, false, false, 3},
		{"missing, on a root that can be written", func(_ *testing.T, w *world) { w.data = map[string][]byte{} }, true, true, 3},
		{"read-only", func(*testing.T, *world) {}, false, false, 1},
		{"read-only, cut after commit point 1", edit(func(j *Journal) { j.State = StateInstalled }), false, false, 1},
		{"read-only, in its second start", edit(func(j *Journal) { j.State = StateTrial }), false, false, 1},
		{"read-only, cut in a roll-back", edit(func(j *Journal) { j.State, j.Job.Reason = StateRollingBack, "unhealthy" }), false, false, 1},
		{"read-only, cancelled too late", edit(func(j *Journal) { j.Job.Cancelling = true }), false, false, 1},
		{"read-only, a job that the start contradicts", edit(func(j *Journal) { j.State = StateInstalling }), false, false, 1},
	} {
		for _, scheme := range schemes {
			for _, behaviour := range []string{"healthy", "unhealthy", "hangs"} {
				bubble(t, tc.name+"/"+scheme+"/"+behaviour, func(t *testing.T) {
					w := pending(t, scheme, behaviour)
					tc.mount(t, w)
					data := w.data
					for range 8 {
						m, err := w.boot()
						if err != nil {
							t.Fatal(err)
						}
						if w.readOnly = m.version == "2" && !tc.writable; m.version != "2" {
							w.data = data
						} else if !tc.writable {
							w.data = maps.Clone(data)
						}
						l := startOn(t, w, m, func(o *Options, _ *engine) {
							o.Migrate = nil // from where is among what was lost
						})
						if m.version == "2" {
							time.Sleep(2 * time.Minute)
							if s := l.Snapshot(); w.reboots == 0 && !(tc.stays && behaviour == "healthy" && !s.Trial && s.Primary == "b") {
								t.Errorf("version 2 was not judged: %+v", s)
								l.end()
								return
							}
						}
						s := l.Snapshot()
						l.end()
						if m.version == "1" || !s.Trial && s.Primary == "b" {
							break
						}
					}
					want := "1"
					if tc.stays && behaviour == "healthy" {
						want = "2"
					}
					if running := w.slots[w.running].chunks[0]; running != want || len(w.faults) > 0 {
						t.Errorf("version %s runs, faults %q; want version %s\n%s", running, w.faults, want, w)
					}
					if n := w.starts["2"]; want == "1" && n != tc.starts {
						t.Errorf("version 2 was started %d times; want %d", n, tc.starts)
					}
				})
			}
		}
	}
}

// TestUnrecordedWithoutAWayBack: a healthy system that cannot write its records
// stays if there is nothing else that could be started.
func TestUnrecordedWithoutAWayBack(t *testing.T) {
	for behaviour, confirmed := range map[string]bool{"healthy": true, "unhealthy": false} {
		bubble(t, behaviour, func(t *testing.T) {
			w := pending(t, schemes[0], behaviour)
			m, err := w.boot()
			if err != nil {
				t.Fatal(err)
			}
			setEnv("boot_bad", "a")(w, nil)
			w.faults, w.readOnly = nil, true
			l := startOn(t, w, m, nil)
			defer l.end()
			time.Sleep(time.Hour)
			if s := l.Snapshot(); s.Trial == confirmed || s.Primary != "b" || w.reboots != 0 || l.m.trial != 0 {
				t.Errorf("%+v, %d reboots, watchdog %d", s, w.reboots, l.m.trial)
			}
			w.faults = nil // slot a was made bad by this test
		})
	}
}

// TestTrialWithoutRoom: a data partition that is full is no fault of a system that
// passes its checks, and puts off no verdict on one that does not.
func TestTrialWithoutRoom(t *testing.T) {
	for _, scheme := range schemes {
		for behaviour, stays := range map[string]bool{"healthy": true, "unhealthy": false} {
			bubble(t, scheme+"/"+behaviour, func(t *testing.T) {
				w := pending(t, scheme, behaviour)
				w.full = true
				l := start(t, w, nil)
				time.Sleep(2 * time.Minute)
				s := l.Snapshot()
				l.end()
				if stays != (!s.Trial && s.Primary == "b" && w.reboots == 0) {
					t.Errorf("%+v, %d reboots", s, w.reboots)
				}
				w.full = false
				l = start(t, w, nil)
				time.Sleep(2 * time.Minute)
				s = l.Snapshot()
				l.end()
				if want := map[bool]string{true: "2", false: "1"}[stays]; s.State != StateIdle || s.Trial || w.slots[w.running].chunks[0] != want {
					t.Errorf("with room again: %+v; want version %s", s, want)
				}
				if s.Last == nil || (s.Last.Outcome == Success) != stays {
					t.Errorf("on record: %+v", s.Last)
				}
			})
		}
	}
}

// TestMarkGoodWithoutRecords: an override that cannot be put on record does not
// take effect, and the trial keeps its judge.
func TestMarkGoodWithoutRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := pending(t, schemes[0], "hangs")
		l := start(t, w, nil)
		defer l.end()
		l.reach(StateTrial)
		w.readOnly = true
		if message, err := l.Mark(l.ctx, "good", "b"); err == nil {
			t.Errorf("Mark = %q", message)
		}
		if s := l.Snapshot(); !s.Trial || s.Primary != "b" {
			t.Errorf("after Mark: %+v", s)
		}
		time.Sleep(2 * time.Minute)
		if s := l.Snapshot(); s.Primary != "a" || s.Trial || w.reboots == 0 {
			t.Errorf("past the deadline: %+v, %d reboots", s, w.reboots)
		}
	})
}

// TestNothingCanBeWritten: neither the journal nor the boot environment; the
// starts that the bootloader counts are all that is left.
func TestNothingCanBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := pending(t, schemes[0], "unhealthy")
		l := start(t, w, func(o *Options, _ *engine) { o.Boot = deadControl{o.Boot} })
		defer l.end()
		w.readOnly = true
		time.Sleep(time.Minute)
		if s := l.Snapshot(); w.reboots == 0 || !s.Trial {
			t.Errorf("%+v, %d reboots", s, w.reboots)
		}
	})
}

// deadControl is a boot environment that can be read only.
type deadControl struct{ bootctl.Control }

func (deadControl) Apply(bootctl.Change) error { return errors.New("the medium is read-only") }
