// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A scenario is an update and what people do meanwhile. It is run once without
// a cut, then with the power cut before durable step 1, 2, 3, … until a run
// survives, and after every cut the device is started until it has settled.
type scenario struct {
	name string
	good string // how version 2 behaves
	mode string
	opt  InstallOptions
	// block halts the engine in this stage until the context ends, as long as
	// the job was not paused once.
	block string
	// act is called at every change of the snapshot; it returns true once it
	// asked for something, and is not called again in this life.
	act func(u *Updater, s Snapshot) (done bool)
	// twoStores is a device with a second store of the floors.
	twoStores bool
	// floor is what both stores hold before; a permit lets the device go back to 15.
	floor uint64
	// end
	outcome Outcome
	reason  []string // one of these is in the message
	tries   bool     // and, in a run without a cut, how often it was tried
	slot    string   // that runs in the end
	denied  bool
}

var scenarios = []scenario{
	{name: "success", opt: InstallOptions{Reboot: true}, outcome: Success, reason: []string{"is confirmed"}, slot: "b"},
	{name: "success, streamed", mode: "stream", opt: InstallOptions{Reboot: true}, outcome: Success, reason: []string{"is confirmed"}, slot: "b"},
	{name: "success, two stores of the floors", twoStores: true, opt: InstallOptions{Reboot: true}, outcome: Success, reason: []string{"is confirmed"}, slot: "b"},
	{name: "back by a permit", twoStores: true, floor: 21, opt: InstallOptions{Reboot: true, Permit: []byte("permit")}, outcome: Success, reason: []string{"is confirmed; it went back by permit 7"}, slot: "b"},
	{name: "back by a permit, unhealthy", twoStores: true, floor: 21, good: "unhealthy", opt: InstallOptions{Reboot: true, Permit: []byte("permit")},
		outcome: RolledBack, reason: []string{"unit app.service is failed"}, slot: "a", denied: true},
	{name: "unhealthy", good: "unhealthy", opt: InstallOptions{Reboot: true}, outcome: RolledBack,
		reason: []string{"unit app.service is failed"}, slot: "a", denied: true},
	{name: "past the deadline", good: "hangs", opt: InstallOptions{Reboot: true}, outcome: RolledBack,
		reason: []string{"had not passed within 1m0s"}, slot: "a", denied: true},
	{name: "crashes in trial", good: "crashes", opt: InstallOptions{Reboot: true}, outcome: RolledBack,
		reason: []string{"did not confirm itself (it started"}, tries: true, slot: "a", denied: true},
	{name: "never boots", good: "never boots", opt: InstallOptions{Reboot: true}, outcome: RolledBack,
		reason: []string{"did not confirm itself (it never got as far"}, tries: true, slot: "a", denied: true},
	{name: "override", good: "hangs", opt: InstallOptions{Reboot: true}, outcome: Success, reason: []string{"by hand"}, slot: "b",
		act: func(u *Updater, s Snapshot) bool {
			if s.State != StateTrial {
				return false
			}
			u.Mark(context.Background(), "good", "b")
			return true
		}},
	{name: "mark bad in trial", good: "hangs", opt: InstallOptions{Reboot: true}, outcome: RolledBack,
		reason: []string{"by hand"}, slot: "a", denied: true,
		act: func(u *Updater, s Snapshot) bool {
			if s.State != StateTrial {
				return false
			}
			u.Mark(context.Background(), "bad", "b")
			return true
		}},
	{name: "cancel downloading", block: "download", outcome: Cancelled, reason: []string{"on request"}, slot: "a", act: cancelIn(StateDownloading)},
	{name: "cancel installing", block: "install", outcome: Cancelled, reason: []string{"on request"}, slot: "a", act: cancelIn(StateInstalling)},
	{name: "cancel installed", opt: InstallOptions{KeepInstalled: true}, outcome: Cancelled, reason: []string{"on request"}, slot: "a", act: cancelIn(StateInstalled)},
	{name: "cancel pending reboot", outcome: Cancelled, reason: []string{"on request"}, slot: "a", act: cancelIn(StatePendingReboot, StateTrial)},
	{name: "pause downloading", block: "download", opt: InstallOptions{Reboot: true}, outcome: Success, slot: "b", act: pauseIn(StateDownloading)},
	{name: "pause installing", block: "install", opt: InstallOptions{Reboot: true}, outcome: Success, slot: "b", act: pauseIn(StateInstalling)},
	{name: "pause installing, streamed", mode: "stream", block: "install", opt: InstallOptions{Reboot: true}, outcome: Success, slot: "b", act: pauseIn(StateInstalling)},
	{name: "activate later, reboot later", opt: InstallOptions{KeepInstalled: true}, outcome: Success, slot: "b",
		act: func(u *Updater, s Snapshot) bool {
			switch s.State {
			case StateInstalled:
				go u.Activate(context.Background())
				return false
			case StatePendingReboot:
				u.Reboot(context.Background())
				return true
			}
			return false
		}},
}

func cancelIn(states ...State) func(*Updater, Snapshot) bool {
	return func(u *Updater, s Snapshot) bool {
		if !slices.Contains(states, s.State) {
			return false
		}
		if s.State == StateTrial { // a cut before Cancel, and the device started the target
			u.Mark(context.Background(), "bad", "b")
		} else {
			u.Cancel(s.Job.ID)
		}
		return true
	}
}

func pauseIn(state State) func(*Updater, Snapshot) bool {
	return func(u *Updater, s Snapshot) bool {
		if s.State != state {
			return false
		}
		if !s.Job.Paused && u.Pause(s.Job.ID) != nil {
			return true
		}
		u.Resume(s.Job.ID)
		return true
	}
}

// TestPowerCuts cuts the power before every durable step of every scenario, in
// both schemes.
func TestPowerCuts(t *testing.T) {
	total := 0
	for _, scheme := range schemes {
		for _, sc := range scenarios {
			t.Run(scheme+"/"+sc.name, func(t *testing.T) {
				points := 0
				run(t, scheme, sc, false)
				for n := 1; !t.Failed(); n++ {
					w := run(t, scheme, sc, false, n)
					if w.steps < n {
						break // nothing was cut any more
					}
					points++
					if strings.Contains(strings.Join(w.log, "\n"), "CUT before environment") {
						run(t, scheme, sc, true, n) // in the middle of the write, too
						points++
					}
					if n > 200 {
						t.Fatal("no run survives")
					}
				}
				total += points
				t.Logf("%d cut points", points)
			})
		}
	}
	t.Logf("%d cut points in %d scenarios and %d schemes", total, len(scenarios), len(schemes))
}

// TestTwoPowerCuts cuts the power a second time, soon after the first.
func TestTwoPowerCuts(t *testing.T) {
	total := 0
	for _, scheme := range schemes {
		for _, sc := range scenarios {
			t.Run(scheme+"/"+sc.name, func(t *testing.T) {
				for n := 1; !t.Failed(); n++ {
					var w *world
					for gap := 1; gap <= 4 && !t.Failed(); gap++ {
						w = run(t, scheme, sc, gap%2 == 0, n, n+gap)
						total++
					}
					if w.steps < n {
						break
					}
				}
			})
		}
	}
	t.Logf("%d pairs of cuts in %d scenarios and %d schemes", total, len(scenarios), len(schemes))
}

// run lives through one schedule in a bubble of its own.
func run(t *testing.T, scheme string, sc scenario, torn bool, cuts ...int) (w *world) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w = newWorldOf(scheme)
		w.cutAt, w.torn = cuts, torn
		if sc.twoStores {
			w.second = map[string][]byte{}
		}
		if w.floor = sc.floor; w.floor > 0 {
			b := encoded(t, floors{Sequence: w.floor, Time: testNow})
			w.data[fileFloors], w.second[fileFloors] = b, b
		}
		if sc.good != "" {
			w.good["2"] = sc.good
		}
		u, err := w.settle(sc)
		if err == nil {
			err = w.verdict(sc, u)
		}
		w.check("in the end")
		if err != nil || len(w.faults) > 0 {
			t.Errorf("%s, %s, cut before %v (torn: %v): %v\n\t%s\n%s", scheme, sc.name, cuts, torn, err, strings.Join(w.faults, "\n\t"), w)
		}
	})
	return w
}

// settle starts the device again and again until the scenario is over.
func (w *world) settle(sc scenario) (*Updater, error) {
	paused := false
	for range 20 {
		m, err := w.boot()
		if err != nil {
			return nil, err
		}
		e := &engine{w: w, mode: sc.mode, permit: permitTo(15)}
		e.gate = func(ctx context.Context, stage string) error {
			if stage != sc.block || paused {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		u, over, err := w.live(sc, m, e, &paused)
		if over || err != nil {
			return u, err
		}
	}
	return nil, errors.New("the device does not settle")
}

// live is one life of the daemon; over says that the scenario has ended in it.
func (w *world) live(sc scenario, m *machine, e *engine, paused *bool) (u *Updater, over bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m.end = cancel
	w.mu.Lock()
	w.cut = cancel
	w.mu.Unlock()
	u = newUpdater(validOptions(w.options(m, e)), w, w.floorStore())
	ended := make(chan struct{})
	go func() { u.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended; synctest.Wait() }()
	<-u.Ready()
	changes := u.Watch(ctx)
	if s := u.Snapshot(); s.State == StateIdle && s.Last == nil {
		if _, err := u.Install(ctx, "https://example.com/2.upb", sc.opt); err != nil && ctx.Err() == nil {
			return u, false, fmt.Errorf("install: %w", err)
		}
	}
	acted := sc.act == nil
	for {
		synctest.Wait()
		s := u.Snapshot()
		if ctx.Err() != nil {
			return u, false, nil
		}
		if s.State == StateIdle && s.Last != nil && !s.Migrating {
			return u, true, nil
		}
		if s.Job != nil && s.Job.Paused {
			*paused = true
			if acted {
				u.Resume(s.Job.ID)
			}
		}
		if !acted {
			if sc.block != "" && s.Job != nil && !s.Job.Paused {
				*paused = *paused || strings.HasPrefix(sc.name, "pause")
			}
			acted = sc.act(u, s)
		} else if s.State == StatePendingReboot && !m.reboot {
			u.Reboot(ctx) // by hand
		}
		select {
		case <-changes:
		case <-ctx.Done():
		case <-time.After(time.Hour):
			return u, false, fmt.Errorf("nothing happens any more in state %s: %q", u.Snapshot().State, u.Snapshot().Problems)
		}
	}
}

func validOptions(o Options) Options {
	if err := o.validate(); err != nil {
		panic(err)
	}
	return o
}

// verdict compares the end with what the scenario has to come to.
func (w *world) verdict(sc scenario, u *Updater) error {
	s := u.Snapshot()
	r := *s.Last
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	outcome, slot, denied := sc.outcome, sc.slot, sc.denied
	if strings.HasPrefix(sc.name, "cancel pending") && r.Outcome == RolledBack && r.Message == "marked bad by hand" {
		outcome, denied = RolledBack, true // the device had started the target before Cancel came
	} else if sc.reason != nil && !slices.ContainsFunc(sc.reason, func(x string) bool { return strings.Contains(r.Message, x) }) {
		wrong("message is %q; want one of %q", r.Message, sc.reason)
	}
	if w.selected != s.Primary {
		wrong("the switch is at slot %s, slot %s is primary", w.selected, s.Primary)
	}
	if r.Outcome != outcome || string(w.running) != slot || string(s.Primary) != slot || s.Trial {
		wrong("ended as %+v on slot %s, primary %s, trial %v; want %s on %s", r, w.running, s.Primary, s.Trial, outcome, slot)
	}
	if got := w.generations(); len(got) == 2 && (got[0].Primary != got[1].Primary || got[1].Trial) && w.steps > 0 && w.slots["b"].chunks[0] != "0" {
		wrong("the two copies differ in the end: %+v", got)
	}
	if d, _ := u.store.deny.find("sha256:2"); d.Bad != denied {
		wrong("deny-list says %+v; want %v", d, denied)
	}
	want := w.floor
	if outcome == Success {
		want = 20
	}
	form, d := "1", data{Release: Origin{Version: "1"}}
	if outcome == Success {
		form, d = "2", data{Release: Origin{Version: "2", Sequence: 20}}
	}
	if w.form != form || u.store.data != d || (w.hooks > 0) != (outcome == Success) || len(w.cutAt) == 0 && w.hooks > 1 {
		wrong("9: the data are those of version %s, migrated to %d times, on record as %+v", w.form, w.hooks, u.store.data)
	}
	for _, p := range u.store.places {
		if p.held.Sequence != want || u.store.floors.Sequence != want {
			wrong("floor in %s is %d, %d in all; want %d", p.name, p.held.Sequence, u.store.floors.Sequence, want)
		}
	}
	if h, err := u.History(0); err != nil || len(h) != 1 || h[0].Outcome != r.Outcome || h[0].Message != r.Message {
		wrong("history is %+v, %v; want %+v once", h, err, r)
	}
	if sc.tries && len(w.cutAt) == 0 && !strings.Contains(r.Message, "after 3 tries") {
		wrong("message is %q; want it to count 3 tries", r.Message)
	}
	if n := w.starts["2"]; n > 3*(2+len(w.cutAt)) {
		wrong("6: version 2 was started %d times on trial", n)
	}
	return errors.Join(errs...)
}
