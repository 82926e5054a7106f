// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// leave makes the data partition look as if n bytes were free for downloads.
func (r *rig) leave(n int64) {
	r.engine.store.avail = func(string) (int64, error) { return reserve + n, nil }
}

// noRoom checks an error about free space: what is needed, what there is, what to do.
func noRoom(t *testing.T, err error, dir string) {
	t.Helper()
	wantName(t, err, update.NameNoSpace)
	for _, want := range []string{dir, "has room for", "make room, or use mode stream"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
}

// Without room on the data partition nothing is fetched that would not fit, and
// mode auto streams.
func TestNoRoomOnTheDataPartition(t *testing.T) {
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	v, _, rec, _ := recipe(t, data, "full")
	r := newRig(t, data, v1, nil)
	r.leave(rec.Data.Length / 2)
	_, err := r.engine.Inspect(t.Context(), r.url(), "b", update.InstallOptions{Mode: ModeStore})
	noRoom(t, err, r.o.Dir)
	rel := r.inspect(ModeAuto)
	if rel.Mode != ModeStream {
		t.Fatalf("mode auto chose %s", rel.Mode)
	}
	if got := r.server.total(); got != 2*v.PayloadOffset {
		t.Errorf("%d bytes served, want header and envelope of two inspections", got)
	}
	if _, err := r.run(t.Context(), rel, quiet); err != nil {
		t.Fatal(err)
	}
	r.holds(v2, nil)
}

// The room is gone when the download begins.
func TestRoomGoneSinceInspect(t *testing.T) {
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	v, img, rec, _ := recipe(t, data, "full")
	tables := img.Chunks.Length + rec.Table.Length
	for _, c := range []struct{ left, served int64 }{
		{0, v.PayloadOffset},
		{rec.Data.Length - 1, v.PayloadOffset + tables},
	} {
		before := noise(3, slotSize)
		r := newRig(t, data, v1, before)
		rel := r.inspect(ModeStore)
		r.leave(c.left)
		err := r.engine.Download(t.Context(), rel, quiet)
		noRoom(t, err, r.o.Dir)
		if got := r.server.total(); got != c.served {
			t.Errorf("%d bytes free: %d bytes served, want %d", c.left, got, c.served)
		}
		r.holds(nil, before)
		// There is room again.
		r.restart()
		if rel, err = r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.run(t.Context(), rel, quiet); err != nil {
			t.Fatal(err)
		}
		r.holds(v2, before)
	}
}

// Only what is missing has to fit: a download that is nearly complete, and one
// that the slot makes small.
func TestRoomForWhatIsMissing(t *testing.T) {
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	_, _, _, entries := recipe(t, data, "full")
	r := newRig(t, data, v1, spotted(v2, 1, 2))
	rel := r.inspect(ModeStore)
	r.leave(int64(entries[1].Length + entries[2].Length))
	if err := r.engine.Download(t.Context(), rel, quiet); err != nil {
		t.Fatal(err)
	}
	r.restart()
	rel, err := r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.engine.store.reserve = 1 << 60
	if _, err := r.run(t.Context(), rel, quiet); err != nil {
		t.Fatal(err)
	}
	r.holds(v2, nil)
}

// The store budget bounds what a record that is wrong would let in.
func TestStoreBudgetIsCheckedAgain(t *testing.T) {
	v1, v2 := systems()
	r := newRig(t, build(t, nil, "rootfs", nil, v2), v1, nil)
	r.o.StoreBudget = 100_000
	r.o.Records = func() []update.SlotRecord {
		return []update.SlotRecord{{Slot: "b", Class: "rootfs", Digest: bundle.Sum(v2).String()}}
	}
	r.restart()
	rel := r.inspect(ModeStore)
	err := r.engine.Download(t.Context(), rel, quiet)
	wantName(t, err, update.NameNoSpace)
	if !strings.Contains(err.Error(), "store budget of 100000; use mode stream") {
		t.Errorf("error %q", err)
	}
	if got := r.server.total(); got > 10_000 {
		t.Errorf("%d bytes served", got)
	}
}

// What a job fetched before the daemon was killed counts against its budget,
// and no longer against that of the next job.
func TestByteBudgetOverRestarts(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	_, _, rec, _ := recipe(t, data, "full")
	for _, mode := range modes {
		r := newRig(t, data, v1, nil)
		expected := r.inspect(mode).Download.Expected
		r.o.ByteBudget = expected + 2*chunkSize
		r.restart()
		rel := r.inspect(mode)
		start := r.server.total()
		rel.Job = 5
		fetched := int64(0)
		var err error
		for range 100 {
			ctx, cancel := cancelAfter(t, 1)
			r.server.mu.Lock()
			r.server.cut = func(_ int, _, n int64) int64 { return min(n, 3*chunkSize) }
			r.server.broken = func(int) {
				time.Sleep(5 * time.Millisecond) // what was sent arrives
				cancel()
			}
			r.server.mu.Unlock()
			_, err = r.run(ctx, rel, func(p update.Progress) {
				if p.Fetched < fetched {
					t.Errorf("%s: fetched goes from %d to %d", mode, fetched, p.Fetched)
				}
			})
			fetched = r.tally(rel).Stats.Fetched
			var named update.Named
			if err == nil || errors.As(err, &named) {
				break
			}
			// Whatever was achieved is lost: only the tally knows what it cost.
			if err := r.engine.store.remove(rec); err != nil {
				t.Fatal(err)
			}
			copyInto(t, r.o.Slots["rootfs"]["b"], make([]byte, len(v2)), 0)
			r.restart()
			if rel, err = r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{}); err != nil {
				t.Fatal(err)
			}
			rel.Job = 5
		}
		wantName(t, err, update.NameOverBudget)
		if fetched > r.o.ByteBudget || fetched < chunkSize {
			t.Errorf("%s: %d bytes fetched, budget %d (served %d)", mode, fetched, r.o.ByteBudget, r.server.total()-start)
		}
		r.server.mu.Lock()
		r.server.cut = nil
		r.server.mu.Unlock()
		rel.Job = 6
		r.restart()
		if _, err := r.run(t.Context(), rel, quiet); err != nil {
			t.Errorf("%s: next job: %v", mode, err)
		}
	}
}

// tally is the stored tally of a release.
func (r *rig) tally(rel *update.Release) tally {
	p := must(r.engine.planOf(r.t.Context(), rel))
	return parseTally(r.engine.store.read(r.engine.store.tallyPath(p), maxTally))
}

// The tally on the medium is never far behind, so a power cut hides little.
func TestTallyKeepsUp(t *testing.T) {
	const size = 6 << 20
	image := noise(5, size)
	data := build(t, plain, "rootfs", nil, image)
	for _, mode := range modes {
		r := newRig(t, data, nil, nil)
		r.fill(nil, nil, size)
		rel := r.inspect(mode)
		rel.Job = 9
		worst := int64(0)
		stats, err := r.run(t.Context(), rel, func(p update.Progress) {
			worst = max(worst, p.Fetched-r.tally(rel).Stats.Fetched)
		})
		if err != nil {
			t.Fatal(err)
		}
		// What comes between two reports of a download is not known before the second.
		if most := int64(tallyEvery + chunkSize); mode == ModeStream && worst > most {
			t.Errorf("%s: the tally was %d bytes behind, want at most %d", mode, worst, most)
		}
		if got, want := r.tally(rel), (tally{9, stats}); got != want {
			t.Errorf("%s: tally at the end is %+v, want %+v", mode, got, want)
		}
	}
}

func FuzzTally(f *testing.F) {
	f.Add([]byte(`{"job":1,"stats":{"fetched":12}}`))
	f.Add([]byte(`{"job":1,"stats":{"fetched":-12}}`))
	f.Add([]byte(`{"stats":{"fetched":99999999999999999999}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := parseTally(b).Stats
		if s.Fetched < 0 || s.Written < 0 || s.Blocks < 0 || s.Reused < 0 || s.Fetched > 1<<56 {
			t.Fatalf("%q is read as %+v", b, s)
		}
	})
}
