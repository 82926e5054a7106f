// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/updaterd/internal/proof/medium"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// A scenario is what a person wants of a device.
type scenario struct {
	name string
	// releases are installed one after the other.
	releases []int
	opt      update.InstallOptions
	good     map[int]string // how versions behave on trial
	// cancel asks to cancel in one of these states; in a trial, that comes too
	// late, it marks the slot bad. block is the stage that does not end before.
	cancel []update.State
	block  string
	// empty is a device that came without a system in slot b.
	empty bool
	// order is a device with scheme bootorder, stores one that keeps the floors
	// in a second store, too.
	order, stores bool
	// end
	outcome update.Outcome // of the last release
	slot    bootctl.Slot   // that runs in the end
	// safe is for a device on which something is broken: any end will do in
	// which a complete system runs and the invariants hold.
	safe bool
}

var reboot = update.InstallOptions{Reboot: true}

var scenarios = []scenario{
	{name: "success", empty: true, releases: []int{2}, opt: reboot, outcome: update.Success, slot: "b"},
	{name: "streamed", releases: []int{2}, opt: update.InstallOptions{Reboot: true, Mode: "stream"}, outcome: update.Success, slot: "b"},
	{name: "unhealthy", empty: true, releases: []int{2}, opt: reboot, good: map[int]string{2: "unhealthy"}, outcome: update.RolledBack, slot: "a"},
	{name: "never starts", empty: true, releases: []int{2}, opt: reboot, good: map[int]string{2: "never starts"}, outcome: update.RolledBack, slot: "a"},
	{name: "crashes on trial", releases: []int{2}, opt: reboot, good: map[int]string{2: "crashes"}, outcome: update.RolledBack, slot: "a"},
	{name: "cancelled while installing", releases: []int{2}, opt: reboot, cancel: []update.State{update.StateInstalling}, block: "install", outcome: update.Cancelled, slot: "a"},
	{name: "cancelled before the reboot", releases: []int{2}, cancel: []update.State{update.StatePendingReboot, update.StateTrial}, outcome: update.Cancelled, slot: "a"},
	{name: "a second update", releases: []int{2, 3}, opt: reboot, outcome: update.Success, slot: "a"},
	{name: "another after a failed one", releases: []int{2, 3}, opt: reboot, good: map[int]string{2: "unhealthy"}, outcome: update.Success, slot: "b"},
	{name: "a second update, two stores of the floors", stores: true, releases: []int{2, 3}, opt: reboot, outcome: update.Success, slot: "a"},
	{name: "unhealthy, two stores of the floors", stores: true, releases: []int{2}, opt: reboot, good: map[int]string{2: "unhealthy"}, outcome: update.RolledBack, slot: "a"},
	{name: "success in order", order: true, empty: true, releases: []int{2}, opt: reboot, outcome: update.Success, slot: "b"},
	{name: "unhealthy in order", order: true, releases: []int{2}, opt: reboot, good: map[int]string{2: "unhealthy"}, outcome: update.RolledBack, slot: "a"},
	{name: "never starts in order", order: true, empty: true, releases: []int{2}, opt: reboot, good: map[int]string{2: "never starts"}, outcome: update.RolledBack, slot: "a"},
}

// settle starts the device until what the scenario wants has come about, in a
// bubble of its own: the clock begins in the year 2000, long before the releases
// were made.
func (d *device) settle(t *testing.T, sc scenario) {
	synctest.Test(t, func(t *testing.T) {
		if err := d.live(sc); err != nil {
			d.fault("%v", err)
		}
	})
}

func (d *device) live(sc scenario) error {
	for range bootMax {
		r, err := d.boot()
		if err != nil {
			return err
		}
		over, err := d.life(sc, r)
		if over || err != nil {
			return err
		}
		d.m.Restart(r.reboot)
		d.check(d.m.State())
	}
	return errors.New("6: the device does not settle")
}

// life is one life of the daemon; over says that the scenario has ended in it.
func (d *device) life(sc scenario, r *run) (over bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r.end, d.lossy = cancel, sc.safe
	u, err := d.daemon(r, func(ctx context.Context, p update.Progress) {
		if p.Stage == sc.block && p.Done > p.Total/2 {
			<-ctx.Done()
		}
	})
	if err != nil {
		return false, err
	}
	ended := make(chan struct{})
	go func() { u.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended; synctest.Wait() }()
	<-u.Ready()
	d.problems = append(d.problems, u.Snapshot().Problems...)
	for _, p := range u.Snapshot().Problems {
		if strings.Contains(p, "counts as absent") && !sc.safe {
			d.fault("a power cut damaged a record: %s", p)
		}
	}
	changes := u.Watch(ctx)
	cancelled, idle := false, 0
	for {
		synctest.Wait()
		s := u.Snapshot()
		switch {
		case ctx.Err() != nil:
			return false, nil
		case s.State == update.StateIdle && !s.Migrating:
			next := sc.next(u)
			if next == 0 {
				return true, d.verdict(sc, u)
			}
			if _, err := u.Install(ctx, fmt.Sprintf("https://example.com/%d.upb", next), sc.opt); err != nil && ctx.Err() == nil {
				if sc.safe {
					return true, d.verdict(sc, u)
				}
				return false, fmt.Errorf("install version %d: %w", next, err)
			}
			continue
		case slices.Contains(sc.cancel, s.State) && !cancelled && (sc.block == "" || s.Job.Done > s.Job.Total/2):
			cancelled = true
			if s.State == update.StateTrial {
				u.Mark(ctx, "bad", s.Booted)
			} else if err := u.Cancel(s.Job.ID); err != nil {
				return false, err
			}
			continue
		case s.State == update.StatePendingReboot && len(sc.cancel) == 0 && !sc.opt.Reboot:
			u.Reboot(ctx)
			continue
		}
		select {
		case <-changes:
			idle = 0
		case <-ctx.Done():
		case <-time.After(time.Minute): // of the simulated clock
			if idle++; idle == 60 {
				return false, fmt.Errorf("nothing happens any more in state %s: %q", s.State, s.Problems)
			}
		}
	}
}

// next is the release that is to be installed now; 0 means that all were.
func (sc scenario) next(u *update.Updater) int {
	results, _ := u.History(0)
	for _, version := range sc.releases {
		if !slices.ContainsFunc(results, func(r update.Result) bool { return r.Version == fmt.Sprint(version) }) {
			return version
		}
	}
	return 0
}

// verdict compares the end with what the scenario has to come to.
func (d *device) verdict(sc scenario, u *update.Updater) error {
	s, state := u.Snapshot(), d.m.State()
	d.check(state)
	if sc.safe {
		return d.sound(s, state)
	}
	results, _ := u.History(0) // the latest first
	if len(results) == 0 {
		return errors.New("no result is on record")
	}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	last, outcome := results[0], sc.outcome
	if len(sc.cancel) > 1 && last.Outcome == update.RolledBack {
		outcome = update.RolledBack // the device had started the target before Cancel came
	}
	if last.Outcome != outcome || s.Booted != sc.slot || s.Primary != sc.slot || s.Trial {
		wrong("ended as %s (%s) on slot %s, primary %s, trial %v; want %s on %s", last.Outcome, last.Message, s.Booted, s.Primary, s.Trial, outcome, sc.slot)
	}
	if len(results) != len(sc.releases) {
		wrong("%d results for %d releases: %+v", len(results), len(sc.releases), results)
	}
	if version, whole := system(state, sc.slot); !whole || outcome == update.Success && version != sc.releases[len(sc.releases)-1] {
		wrong("slot %s holds version %d (complete: %v)", sc.slot, version, whole)
	}
	if form, _ := state.File(formFile); string(form) != d.formAfter(results) {
		wrong("9: the data have the form %q; want %q", form, d.formAfter(results))
	}
	for _, dir := range []string{dataDir, second} {
		if want := d.floorAfter(results); (dir != second || d.stores) && d.floorIn(state, dir) != want {
			wrong("the floor in %s is %d; want %d", dir, d.floorIn(state, dir), want)
		}
	}
	if g := d.generations(state); len(g) == 2 && (g[0].primary != g[1].primary || g[0].trial || g[1].trial) {
		wrong("the two copies differ in the end: %v, %v", g[0], g[1])
	}
	return errors.Join(errs...)
}

// floorAfter is that of the latest release that was confirmed.
func (d *device) floorAfter(results []update.Result) uint64 {
	for _, r := range results { // the latest first
		var version uint64
		if _, err := fmt.Sscan(r.Version, &version); err == nil && r.Outcome == update.Success {
			return 10 * version
		}
	}
	return 0
}

// formAfter is the form of the data once all that was confirmed was migrated to.
func (d *device) formAfter(results []update.Result) string {
	if v := d.floorAfter(results) / 10; v > 0 {
		return fmt.Sprint(v)
	}
	return ""
}

// sound is the least that has to be true in the end.
func (d *device) sound(s update.Snapshot, state *medium.State) error {
	version, whole := system(state, s.Booted)
	if !whole || !d.sure(version) || s.Primary != s.Booted || s.Trial || slices.Contains(s.Bad, s.Booted) {
		return fmt.Errorf("ended on slot %s with version %d (complete: %v); %+v", s.Booted, version, whole, s)
	}
	return nil
}

// recorded does a scenario without a cut and returns the log.
func (b board) recorded(t *testing.T, sc scenario) (start *medium.State, log []medium.Op) {
	t.Helper()
	start = b.factory(sc.empty)
	d := b.newDevice(start, sc.good, nil, 0)
	d.settle(t, sc)
	if len(d.faults) > 0 {
		t.Fatalf("%s, without a cut:\n\t%s\n%s", sc.name, strings.Join(d.faults, "\n\t"), last(d.m.Log(), 60))
	}
	return start, d.m.Log()
}

func last(log []medium.Op, n int) string {
	var b strings.Builder
	for i, o := range log {
		if i >= len(log)-n {
			fmt.Fprintf(&b, "\t%4d %v\n", i+1, o)
		}
	}
	return b.String()
}
