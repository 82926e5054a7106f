// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
)

const ref = "https://example.com/2.upb"

// bubble runs f in a synctest bubble as a subtest.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestInstallRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(w *world, m *machine)
		change  func(o *Options, e *engine)
		opt     InstallOptions
		want    string
	}{
		"replayed older release": {change: func(o *Options, _ *engine) { o.ImageFloor = 21 }, want: NameBelowFloor},
		"bad mode":               {opt: InstallOptions{Mode: "teleport"}, want: NameBadArgument},
		"slot unproven":          {prepare: func(_ *world, m *machine) { m.start.Slot = "" }, want: NameBootedSlotUnproven},
		"no canary":              {prepare: func(_ *world, m *machine) { m.start.EnvID = "" }, want: NameEnvironmentUnproven},
		"another canary":         {prepare: func(_ *world, m *machine) { m.start.EnvID = "elsewhere" }, want: NameEnvironmentUnproven},
		"environment damaged":    {prepare: func(w *world, _ *machine) { w.medium.Raw(0)[9] ^= 1; w.medium.Raw(1)[9] ^= 1 }, want: NameEnvironmentDamaged},
		"other slot confirmed":   {prepare: setEnv("boot_slot", "b"), want: NameBadState},
		"no way back":            {prepare: setEnv("altbootcmd", ""), want: NameEnvironmentUnproven},
		"booted slot bad":        {prepare: setEnv("boot_bad", "a"), want: NameBadState},
	} {
		bubble(t, name, func(t *testing.T) {
			w := newWorld()
			m, err := w.boot()
			if err != nil {
				t.Fatal(err)
			}
			if tc.prepare != nil {
				tc.prepare(w, m)
			}
			l := startOn(t, w, m, tc.change)
			defer l.end()
			before := w.steps
			_, err = l.Install(l.ctx, ref, tc.opt)
			wantName(t, "Install", err, tc.want)
			if w.steps != before || l.Snapshot().State != StateIdle {
				t.Errorf("Install changed something:\n%s", w)
			}
			if strings.HasPrefix(tc.want, "Environment") || strings.HasPrefix(tc.want, "Booted") {
				if len(l.Snapshot().Problems) == 0 {
					t.Error("no problem is shown")
				}
			}
		})
	}
}

func setEnv(name, value string) func(*world, *machine) {
	return func(w *world, _ *machine) {
		if err := uboot.New(w.medium).Update(true, func(e *uboot.Env) error { return e.Set(name, value) }); err != nil {
			panic(err)
		}
	}
}

func TestCanaryIsOfferedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		setEnv("env_id", "")(w, nil)
		l := start(t, w, nil)
		_, err := l.Install(l.ctx, ref, InstallOptions{})
		wantName(t, "Install before the reboot", err, NameEnvironmentUnproven)
		l.end()
		first, _ := uboot.New(w.medium).Status()
		if len(first.EnvID) != 16 {
			t.Fatalf("canary is %q", first.EnvID)
		}
		l = startOn(t, w, l.m, nil) // the daemon alone
		l.end()
		if again, _ := uboot.New(w.medium).Status(); again.EnvID != first.EnvID {
			t.Errorf("canary was written twice: %q, %q", first.EnvID, again.EnvID)
		}
		l = start(t, w, nil) // one reboot cures it
		defer l.end()
		if p := l.Snapshot().Problems; len(p) != 0 {
			t.Errorf("after a reboot: %q", p)
		}
	})
}

func TestCanaryWaived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.waive = true
		setEnv("env_id", "")(w, nil)
		l := start(t, w, nil)
		defer l.end()
		if _, err := l.Install(l.ctx, ref, InstallOptions{}); err != nil {
			t.Error(err)
		}
		if st, _ := uboot.New(w.medium).Status(); st.EnvID != "" {
			t.Errorf("canary %q was written", st.EnvID)
		}
	})
}

func TestKnownBadIsRefusedUnlessAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.good["2"] = "unhealthy"
		trial := func() {
			l := start(t, w, nil)
			l.reach(StateRollingBack)
			l.end()
		}
		l := start(t, w, nil)
		if _, err := l.Install(l.ctx, ref, InstallOptions{Reboot: true}); err != nil {
			t.Fatal(err)
		}
		l.reach(StatePendingReboot)
		l.end()
		trial()
		l = start(t, w, nil)
		if s := l.reach(StateIdle); s.Last.Outcome != RolledBack || s.Job == nil || !s.Job.Finished {
			t.Errorf("last result %+v, job %+v", s.Last, s.Job)
		}
		_, err := l.Inspect(l.ctx, ref, InstallOptions{})
		wantName(t, "Inspect", err, NameKnownBad)
		_, err = l.Install(l.ctx, ref, InstallOptions{})
		wantName(t, "Install", err, NameKnownBad)
		w.good["2"] = "healthy" // it was the weather
		if _, err := l.Install(l.ctx, ref, InstallOptions{Retry: true}); err != nil {
			t.Fatal(err)
		}
		l.reach(StatePendingReboot)
		l.end()
		l = start(t, w, nil)
		defer l.end()
		l.reach(StateIdle)
		if d, known := l.store.deny.find("sha256:2"); known {
			t.Errorf("after its success it is on the deny-list: %+v", d)
		}
		if r := l.Records(); len(r) != 1 || r[0].Slot != "b" || r[0].Version != "2" || !r[0].Verified {
			t.Errorf("Records() = %+v", r)
		}
		if !l.TimeFloor().Equal(testNow) {
			t.Errorf("TimeFloor() = %v", l.TimeFloor())
		}
	})
}

func TestMark(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(*world, *machine)
		verdict string
		slot    bootctl.Slot
		want    string // in the message, or the name of the error
		primary bootctl.Slot
		bad     string
	}{
		"good, booted":              {verdict: "good", slot: "a", want: "confirmed already", primary: "a"},
		"good, other":               {verdict: "good", slot: "b", want: NameBadState, primary: "a"},
		"bad, booted":               {verdict: "bad", slot: "a", want: NameBadState, primary: "a"},
		"bad, other":                {verdict: "bad", slot: "b", want: "marked bad", primary: "a", bad: "[b]"},
		"bad, other again":          {prepare: setEnv("boot_bad", "b"), verdict: "bad", slot: "b", want: "already", primary: "a", bad: "[b]"},
		"bad, primary":              {prepare: setEnv("boot_slot", "b"), verdict: "bad", slot: "b", want: NameBadState, primary: "b"},
		"good, booted, not primary": {prepare: setEnv("boot_slot", "b"), verdict: "good", slot: "a", want: "primary and confirmed", primary: "a"},
		"good, booted, bad":         {prepare: setEnv("boot_bad", "a"), verdict: "good", slot: "a", want: "primary and confirmed", primary: "a"},
		"what":                      {verdict: "ugly", slot: "a", want: NameBadArgument, primary: "a"},
		"where":                     {verdict: "good", slot: "c", want: NameBadArgument, primary: "a"},
	} {
		bubble(t, name, func(t *testing.T) {
			w := newWorld()
			m, err := w.boot()
			if err != nil {
				t.Fatal(err)
			}
			if tc.prepare != nil {
				tc.prepare(w, m)
			}
			l := startOn(t, w, m, nil)
			defer l.end()
			message, err := l.Mark(l.ctx, tc.verdict, tc.slot)
			if err != nil {
				message = nameOf(err)
			}
			if !strings.Contains(message, tc.want) {
				t.Errorf("Mark = %q, %v; want %q", message, err, tc.want)
			}
			if s := l.Snapshot(); s.Primary != tc.primary || tc.bad != "" && fmt.Sprint(s.Bad) != tc.bad {
				t.Errorf("primary %s, bad %v; want %s, %s", s.Primary, s.Bad, tc.primary, tc.bad)
			}
		})
	}
}

// TestAttemptsAreFinite kills the daemon in the middle of the work again and
// again: without getting any further it gives up, with progress it does not.
func TestAttemptsAreFinite(t *testing.T) {
	for _, mode := range []string{"store", "stream"} {
		bubble(t, mode, func(t *testing.T) {
			w := newWorld()
			stuck := func(o *Options, e *engine) {
				e.mode = mode
				e.gate = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
			}
			l := start(t, w, stuck)
			if _, err := l.Install(l.ctx, ref, InstallOptions{}); err != nil {
				t.Fatal(err)
			}
			lives := 1
			for ; l.Snapshot().State != StateIdle && lives < 20; lives++ {
				synctest.Wait()
				l.end()
				l = startOn(t, w, l.m, stuck)
			}
			defer l.end()
			if r := l.Snapshot().Last; lives > 6 || r == nil || r.Outcome != Failed || !strings.Contains(r.Message, "interrupted 3 times") {
				t.Errorf("after %d lives: %+v", lives, r)
			}
		})
	}
	bubble(t, "with progress", func(t *testing.T) {
		j := Journal{State: StateDownloading, LastID: 7, Job: testJob()}
		f := Facts{Booted: "a", Boot: bootctl.Status{Primary: "a"}, MaxAttempts: 3}
		for mark := 1; mark <= 10; mark++ {
			for range 2 {
				if p := Reconcile(j, f); p.Rule != "resume" {
					t.Fatalf("tenth %d: %s", mark, p.Rule)
				} else {
					j = p.Journal
				}
			}
			j, _, _ = next(j, Event{Kind: EventProgressed, Mark: mark, Facts: f})
		}
	})
}

// TestFailuresAreCounted: a bundle that fails before its trial is denied after
// as many times, unless it was the network's fault.
func TestFailuresAreCounted(t *testing.T) {
	for name, want := range map[string]string{NameMedium: NameKnownBad, NameNetwork: ""} {
		bubble(t, name, func(t *testing.T) {
			w := newWorld()
			l := start(t, w, func(_ *Options, e *engine) {
				e.gate = func(context.Context, string) error { return errorf(name, "it is broken") }
			})
			defer l.end()
			for range 3 {
				if _, err := l.Install(l.ctx, ref, InstallOptions{}); err != nil {
					t.Fatal(err)
				}
				if s := l.reach(StateIdle); s.Last.Error != name || s.Last.Outcome != Failed {
					t.Fatalf("last result is %+v", s.Last)
				}
			}
			_, err := l.Install(l.ctx, ref, InstallOptions{})
			if want == "" && err != nil {
				t.Error(err)
			} else if want != "" {
				wantName(t, "Install", err, want)
			}
		})
	}
}

// TestActivateReadsBackAgain: what was read back before the daemon was started
// again, or long ago, is read back once more.
func TestActivateReadsBackAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		again bool
		wait  time.Duration
		touch bool
		want  State
	}{
		"at once":                 {want: StatePendingReboot},
		"another life":            {again: true, want: StatePendingReboot},
		"another life, touched":   {again: true, touch: true, want: StateIdle},
		"a day later, touched":    {wait: 24 * time.Hour, touch: true, want: StateIdle},
		"a day later, as it was":  {wait: 24 * time.Hour, want: StatePendingReboot},
		"at once, nobody touches": {wait: time.Second, want: StatePendingReboot},
	} {
		bubble(t, name, func(t *testing.T) {
			w := newWorld()
			l := start(t, w, nil)
			if _, err := l.Install(l.ctx, ref, InstallOptions{KeepInstalled: true}); err != nil {
				t.Fatal(err)
			}
			l.reach(StateInstalled)
			if tc.again {
				l.end()
				l = startOn(t, w, l.m, nil)
			}
			defer func() { l.end() }()
			time.Sleep(tc.wait)
			if tc.touch {
				w.slots["b"].chunks[2] = "noise"
			}
			err := l.Activate(l.ctx)
			if s := l.Snapshot(); s.State != tc.want || (err == nil) != (tc.want == StatePendingReboot) {
				t.Errorf("Activate = %v, state %s; want %s", err, s.State, tc.want)
			}
			if tc.touch {
				wantName(t, "Activate", err, NameMedium)
				if s := l.Snapshot(); s.Primary != "a" || fmt.Sprint(s.Bad) != "[b]" {
					t.Errorf("primary %s, bad %v", s.Primary, s.Bad)
				}
			}
		})
	}
}

// TestDataPartitionFails: nothing can be written any more.
func TestDataPartitionFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		m, err := w.boot()
		if err != nil {
			t.Fatal(err)
		}
		full := &failing{w: w}
		ctx, cancel := context.WithCancel(context.Background())
		m.end = func() {}
		e := &engine{w: w, gate: func(context.Context, string) error { full.on.Store(true); return nil }}
		u := newUpdater(validOptions(w.options(m, e)), full, nil)
		ended := make(chan struct{})
		go func() { u.Run(ctx); close(ended) }()
		<-u.Ready()
		full.on.Store(true)
		_, err = u.Install(ctx, ref, InstallOptions{})
		wantName(t, "Install", err, NameNoSpace)
		full.on.Store(false)
		if _, err := u.Install(ctx, ref, InstallOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if s := u.Snapshot(); s.State != StateIdle || s.Last == nil || s.Last.Error != NameNoSpace || len(s.Problems) == 0 {
			t.Errorf("state %s, last %+v, problems %q", s.State, s.Last, s.Problems)
		}
		cancel()
		<-ended
		_, err = u.Install(context.Background(), ref, InstallOptions{})
		wantName(t, "Install after the end", err, NameBadState)
	})
}

type failing struct {
	w  *world
	on atomic.Bool
}

func (f *failing) read(name string, limit int) ([]byte, error) { return f.w.read(name, limit) }
func (f *failing) keep(name, as string) error                  { return f.w.keep(name, as) }
func (f *failing) write(name string, data []byte) error {
	if f.on.Load() {
		return errorf(NameNoSpace, "no space left on device")
	}
	return f.w.write(name, data)
}

func TestPauseSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		stuck := func(_ *Options, e *engine) {
			e.gate = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		}
		l := start(t, w, stuck)
		id, err := l.Install(l.ctx, ref, InstallOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wantName(t, "second Install", func() error { _, err := l.Install(l.ctx, ref, InstallOptions{}); return err }(), NameBusy)
		wantName(t, "Pause of another job", l.Pause(id+1), NameBadState)
		if err := l.Pause(id); err != nil {
			t.Fatal(err)
		}
		for range 5 { // waiting is no attempt
			l.end()
			l = start(t, w, nil)
			if s := l.reach(StateDownloading); !s.Job.Paused || s.Job.ID != id {
				t.Fatalf("job %+v", s.Job)
			}
		}
		if err := l.Resume(id); err != nil {
			t.Fatal(err)
		}
		l.reach(StatePendingReboot)
		wantName(t, "Pause", l.Pause(id), NameBadState)
		if err := l.Cancel(id); err != nil {
			t.Error(err)
		}
		wantName(t, "second Cancel", l.Cancel(id), NameBadState)
		if s := l.Snapshot(); s.Primary != "a" || s.Trial || fmt.Sprint(s.Bad) != "[b]" || !s.Job.Finished || s.Job.Result.Outcome != Cancelled {
			t.Errorf("after Cancel: %+v, job %+v", s, s.Job)
		}
		l.end()
	})
}

func TestWatchAndProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		l := start(t, w, nil)
		ctx, cancel := context.WithCancel(l.ctx)
		c := l.Watch(ctx)
		if _, err := l.Install(l.ctx, ref, InstallOptions{}); err != nil {
			t.Fatal(err)
		}
		<-c
		s := l.reach(StatePendingReboot)
		if s.Job.Stage != "install" || s.Job.Done != 4 || s.Job.Total != 4 || s.Target != "b" || s.Job.Ref != ref {
			t.Errorf("job is %+v", s.Job)
		}
		cancel()
		for range c { // is closed
		}
		l.end()
		if _, err := l.History(-1); nameOf(err) != NameBadArgument {
			t.Error(err)
		}
	})
}

func TestMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m meter
		m.start("download")
		for i := range 60 {
			time.Sleep(time.Second)
			m.update(Progress{Stage: "download", Done: int64(i+1) * 1000, Total: 100_000, Fetched: 1})
		}
		if p, rate, left := m.read(); rate < 990 || rate > 1010 || left < 39*time.Second || left > 41*time.Second || p.Done != 60_000 {
			t.Errorf("read() = %+v, %d, %v; want 1000 bytes a second and 40 s", p, rate, left)
		}
		time.Sleep(30 * time.Second)
		if _, rate, _ := m.read(); rate > 100 {
			t.Errorf("after 30 s without a report the rate is %d", rate)
		}
		m.update(Progress{Stage: "download", Done: 60_000, Total: 100_000})
		if _, rate, _ := m.read(); rate > 100 {
			t.Errorf("after 30 s of nothing the rate is %d", rate)
		}
		m.update(Progress{Stage: "install", Done: 5, Total: 10})
		if p, rate, left := m.read(); rate != 0 || left != 0 || p.Stage != "install" {
			t.Errorf("in a new stage: %+v, %d, %v", p, rate, left)
		}
	})
}

// A download in store mode looks at the target slot first, and then waits for
// the server: neither is how long a byte takes.
func TestMeterBeginsWithTheFirstByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m meter
		m.start("download")
		time.Sleep(40 * time.Second)
		report := func(done int64) {
			m.update(Progress{Stage: "download", Done: done, Total: 100_000})
		}
		report(500) // what was stored before
		time.Sleep(20 * time.Second)
		if _, rate, left := m.read(); rate != 0 || left != 0 {
			t.Errorf("before the first byte: %d, %v", rate, left)
		}
		for i := range int64(5) {
			report(1000 * (i + 1))
			if _, rate, left := m.read(); i > 0 && (rate != 1000 || left < 94*time.Second || left > 98*time.Second) {
				t.Errorf("%d s after the first byte: %d bytes a second, %v left", i, rate, left)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestNewRefusesHalfAnUpdater(t *testing.T) {
	if _, err := New(Options{DataDir: t.TempDir()}); err == nil {
		t.Error("New without a Boot succeeded")
	}
	w := newWorld()
	m, err := w.boot()
	if err != nil {
		t.Fatal(err)
	}
	o := w.options(m, &engine{w: w})
	o.DataDir = t.TempDir() + "/deeper"
	u, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if s := u.Snapshot(); s.State != StateIdle || s.Compatible != "board" {
		t.Errorf("%+v", s)
	}
}
