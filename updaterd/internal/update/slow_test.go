// SPDX-License-Identifier: Apache-2.0

package update

import (
	"testing"
	"time"
)

// TestSlowStart: the first check of a start gets the time that it needs, however
// late it begins; a daemon that is started again does not.
func TestSlowStart(t *testing.T) {
	for _, again := range []bool{false, true} {
		bubble(t, map[bool]string{false: "first", true: "again"}[again], func(t *testing.T) {
			w := pending(t, schemes[0], "healthy")
			late := func(o *Options, _ *engine) {
				o.Uptime, o.MinCheck = func() time.Duration { return time.Hour }, 15*time.Second
			}
			m, err := w.boot()
			if err != nil {
				t.Fatal(err)
			}
			l := startOn(t, w, m, late)
			if again {
				time.Sleep(5 * time.Second)
				l.end()
				l = startOn(t, w, m, late)
			}
			defer l.end()
			time.Sleep(time.Minute)
			if s := l.Snapshot(); (s.State == StateRollingBack) != again || s.Trial {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestSlowStartOfEach: each start of the kernel has its first check, and one that
// does not come to an end is given up in time.
func TestSlowStartOfEach(t *testing.T) {
	for _, behaviour := range []string{"healthy", "hangs"} {
		bubble(t, behaviour, func(t *testing.T) {
			w := pending(t, schemes[0], behaviour)
			late := func(o *Options, _ *engine) {
				o.Uptime, o.MinCheck = func() time.Duration { return time.Hour }, 15*time.Second
			}
			l := start(t, w, late)
			time.Sleep(5 * time.Second)
			l.end()
			l = start(t, w, late) // the device was reset
			defer l.end()
			time.Sleep(20 * time.Second)
			want := map[string]State{"healthy": StateIdle, "hangs": StateRollingBack}[behaviour]
			if s := l.Snapshot(); s.State != want || s.Trial {
				t.Errorf("%+v; want state %s", s, want)
			}
		})
	}
}
