// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/qemu/nbd"
	"github.com/updaterd/updaterd/qemu/origin"
	"github.com/updaterd/updaterd/updaterd/client"
)

// make soak sets these; make test has the short version.
var (
	soakCuts   = flag.Int("soak", 10, "how many power cuts `TestSoak` makes in all")
	soakSeed   = flag.Uint64("soak.seed", 0, "the `seed` of what it does; 0: that of the counts, or the time")
	soakCounts = flag.String("soak.counts", "", "a `file` that keeps the counts, so that the next run goes on from them")
)

// TestSoak updates one device again and again and cuts its power, at writes that
// it chooses and at random instants, twice in each update. After each
// cut it looks at the card and at what is started, and each update has to come
// to its end by itself.
func TestSoak(t *testing.T) {
	t.Parallel()
	counts, err := loadCounts(*soakCounts, *soakSeed)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("soak: seed %d, %d of %d cuts were made before\n", counts.Seed, counts.Cuts, *soakCuts)
	defer func() { fmt.Printf("soak: %v\n", counts) }()
	if counts.Cuts >= *soakCuts {
		return
	}
	s := newSoak(t, counts)
	for counts.Cuts < *soakCuts && !t.Failed() {
		s.update()
		if err := counts.save(*soakCounts); err != nil {
			t.Fatal(err)
		}
	}
}

// soak is one device with its releases: each version is updated to the next.
type soak struct {
	*testing.T
	*small
	dev    *device.Device
	server *origin.Server
	counts *counts
	rng    *rand.Rand
	start  time.Duration // that a start takes on this machine
	// Of each version, in turn.
	versions, images, bundles []string
}

func newSoak(t *testing.T, c *counts) *soak {
	t.Helper()
	s := &soak{T: t, small: smallSystems(t), counts: c, versions: []string{"1.0", "2.0", "3.0"}}
	// What a resumed run does is not what the first one did again.
	s.rng = rand.New(rand.NewPCG(c.Seed, uint64(c.Cuts)))
	v3 := s.image(t, device.System{Flavour: assets.Small, Version: "3.0", Health: healthOfSmall, Download: `store_budget = "48MiB"`})
	s.images = []string{s.v1, s.v2, v3}
	s.bundles = []string{
		s.bundle(t, device.Release{Version: "1.0", Sequence: 10, Image: s.v1, From: []string{v3}}),
		s.two,
		s.bundle(t, device.Release{Version: "3.0", Sequence: 10, Image: v3, From: []string{s.v2}}),
	}
	s.server = s.serve(t, s.workshop.bundles)
	s.dev = s.newDevice(t, assets.Disk{Flavour: assets.Small, SlotA: s.v1, SlotB: v3, EnvID: "factory"})
	s.dev.Watched = true
	begin := time.Now()
	boot(t, s.dev)
	s.start = time.Since(begin)
	return s
}

// update brings the device to the next version, with two power cuts. With a third
// one, a trial could be used up.
func (s *soak) update() {
	before := status(s.T, s.dev)
	next := (slices.Index(s.versions, before.Version) + 1) % len(s.versions)
	s.server.Reset()
	ctx := within(s.T, 15*time.Minute)
	cuts := min(2, *soakCuts-s.counts.Cuts)
	for n := range cuts {
		kind, instant := s.plan(before.TargetSlot)
		if n == 0 {
			go func() {
				// It ends with the cut, or with a reboot.
				_, _ = s.dev.Run(ctx, "updaterctl", "install", "--reboot", url(s.server, s.bundles[next]))
			}()
		} else if err := s.dev.PowerOn(ctx); err != nil {
			s.Fatal(err)
		}
		if !s.await(ctx, kind, instant, s.versions[next]) {
			break // it had come to its end before
		}
		state := s.cut(before)
		s.counts.Cuts++
		s.counts.Kinds[kind]++
		s.counts.Found[state]++
		s.Logf("cut %d of %d, %s: the card is found %s", s.counts.Cuts, *soakCuts, kind, state)
		if s.Failed() {
			return
		}
	}
	if s.dev.VM == nil {
		boot(s.T, s.dev)
		s.started(before)
	}
	s.finish(ctx, before, s.versions[next])
}

// plan chooses where the power is cut: at a write of the environment, at one of
// the target slot, or after some time, which is 0 for the others.
func (s *soak) plan(target string) (kind string, instant time.Duration) {
	// A copy of the environment is written in sectors: mark bad and commit point
	// 2 are two copies each, commit point 1 and each counted start one.
	const sectors = 0x4000 / 512
	from, to := slotRange(s.T, target)
	switch s.rng.IntN(4) {
	case 0:
		s.dev.Disk.CutAtWrite(1+s.rng.IntN(6*sectors), 0, func(w nbd.Write) bool { return w.Offset >= envFrom && w.Offset < envTo })
		return "at a write of the environment", 0
	case 1:
		// In some of the updates a slot gets few writes, in others thousands.
		n := 1 << s.rng.IntN(13)
		s.dev.Disk.CutAtWrite(n+s.rng.IntN(n), 0, func(w nbd.Write) bool { return w.Offset >= from && w.Offset < to })
		return "at a write of the slot", 0
	}
	// An update, with a restart in it, takes about four times as long as a start.
	return "at a random instant", 1 + time.Duration(s.rng.Float64()*float64(4*s.start))
}

// await waits for the cut. If the update comes to its end before, the power of
// one at a random instant is cut then; of the others there is none, and it reports false.
func (s *soak) await(ctx context.Context, kind string, instant time.Duration, version string) bool {
	var over <-chan time.Time
	if instant > 0 {
		over = time.After(instant)
	}
	// Beside, because a question to a guest that is restarting takes its time.
	asking, stop := context.WithCancel(ctx)
	ended, asked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(asked)
		if s.ended(asking, version) {
			close(ended)
		}
	}()
	defer func() { stop(); <-asked }()
	select {
	case <-over:
	case <-s.dev.Disk.Cut():
	case <-ended:
		s.dev.Disk.CutAtWrite(0, 0, nil)
		return over != nil
	case <-ctx.Done():
		s.Fatalf("%s: %v; the console's last words:\n%s", kind, context.Cause(ctx), tail(s.dev.VM.Console.Text()))
	}
	return true
}

// ended waits until the device has updated itself to version.
func (s *soak) ended(ctx context.Context, version string) bool {
	for {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return false
		}
		st, err := s.dev.Status(ctx)
		if err == nil && st.State == client.Idle && !st.Trial && st.Version == version {
			return true
		}
	}
}

// cut pulls the plug, looks at the card and says in a word what is on it.
func (s *soak) cut(before *client.Status) string {
	s.dev.PowerOff()
	copies := s.copies()
	if len(copies) == 0 {
		s.Fatal("no copy of the environment is intact")
	}
	whole := map[string]bool{}
	for _, slot := range []string{"a", "b"} {
		whole[slot] = s.wholeSlot(slot)
	}
	if !whole[before.BootedSlot] {
		s.Errorf("slot %s, which ran, is not complete", before.BootedSlot)
	}
	for _, env := range copies { // each alone has to do
		bad := strings.Fields(env["boot_bad"])
		primary := env["boot_slot"]
		if !whole[primary] || slices.Contains(bad, primary) {
			s.Errorf("slot %s is primary; bad: %q, complete: %v", primary, bad, whole)
		}
		for slot, complete := range whole {
			if !complete && !slices.Contains(bad, slot) {
				s.Errorf("slot %s is not complete, and only %q is marked bad", slot, bad)
			}
		}
	}
	switch env := copies[0]; {
	case len(copies) == 1:
		return "with one torn copy of the environment"
	case env["upgrade_available"] == "1":
		return "on trial"
	case env["boot_slot"] != before.BootedSlot:
		return "confirmed"
	case !whole[before.TargetSlot]:
		return "with a slot that is half written"
	case strings.Contains(env["boot_bad"], before.TargetSlot):
		return "with the target marked bad"
	}
	return "as before the update"
}

// started looks at what the device runs after a cut.
func (s *soak) started(before *client.Status) {
	st := status(s.T, s.dev)
	s.counts.Starts++
	if n := s.dev.Resets(); n > 4 {
		s.Errorf("%d resets after a cut", n)
	}
	if st.BootedSlot != before.BootedSlot && !st.Trial && st.State != client.Idle {
		s.Errorf("the device runs slot %s, neither confirmed before nor on trial", st.BootedSlot)
	}
	if slices.Contains(st.BadSlots, st.BootedSlot) {
		s.Errorf("the device runs slot %s, which is marked bad", st.BootedSlot)
	}
}

// finish waits until the device has settled, on the new version, or on the old
// one if the update had not begun.
func (s *soak) finish(ctx context.Context, before *client.Status, version string) {
	st, err := s.dev.Decided(ctx)
	if err != nil {
		s.Fatal(err)
	}
	switch last := st.LastResult; {
	case st.Version == version && st.BootedSlot == before.TargetSlot && last != nil && last.Outcome == client.Success:
		s.counts.Updates++
	case st.Version == before.Version && (last == nil || before.LastResult != nil && last.Time.Equal(before.LastResult.Time)):
		s.counts.NotBegun++
		return
	default:
		s.Fatalf("the update ended on version %s in slot %s: %+v", st.Version, st.BootedSlot, last)
	}
	if len(st.Problems) > 0 {
		s.Errorf("problems: %v", st.Problems)
	}
	expectEnv(s.T, s.dev, map[string]string{"boot_slot": before.TargetSlot, "upgrade_available": "0", "bootcount": "0", "boot_bad": ""})
}
