// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// spotted is image with other content in some of its chunks.
func spotted(image []byte, chunks ...int) []byte {
	b := bytes.Clone(image)
	for _, i := range chunks {
		copy(b[i*chunkSize:min((i+1)*chunkSize, len(b))], noise(uint64(100+i), chunkSize))
	}
	return b
}

// In store mode only those chunks come over the wire that the slot does not
// have: each run of them in one range.
func TestStoreFetchesWhatTheSlotLacks(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	for _, c := range []struct {
		kind   string
		chunks []int // that the slot lacks
		runs   int
		extra  []int // chunks that lie in a gap that is no longer than a bridge
	}{
		{"delta", []int{1, 8, 9}, 2, nil},
		{"full", []int{1, 8, 9}, 2, nil},
		{"full", []int{0, 2, 7, 9}, 4, nil},
		{"full", []int{0, 2, 5, 7, 9}, 4, []int{4}},
		{"full", []int{10, 11, 0}, 1, nil}, // chunk 0 comes last
		{"full", []int{3}, 0, nil},         // zeros have no bytes
		{"full", nil, 0, nil},
	} {
		t.Run(fmt.Sprint(c.kind, c.chunks), func(t *testing.T) {
			v, img, rec, entries := recipe(t, data, c.kind)
			r := newRig(t, data, v1, spotted(v2, c.chunks...))
			if c.kind == "full" {
				r.o.BuildID = ""
				r.restart()
			}
			rel := r.inspect(ModeStore)
			head := r.server.total()
			if err := r.engine.Download(t.Context(), rel, quiet); err != nil {
				t.Fatal(err)
			}
			want := v.PayloadOffset + img.Chunks.Length + rec.Table.Length
			for _, i := range append(c.chunks, c.extra...) {
				want += int64(entries[i].Length)
			}
			for _, i := range c.extra {
				if n := entries[i].Length; n == 0 || n > bridge {
					t.Fatalf("chunk %d has %d bytes", i, n)
				}
			}
			if got := r.server.total(); got != want || head != rel.Download.Minimum || got > rel.Download.Expected {
				t.Errorf("%d bytes served, want %d; inspect said %+v", got, want, rel.Download)
			}
			tables := 3
			if c.kind == "full" {
				tables = 4
			}
			if got := len(r.server.log()); got != tables+c.runs {
				t.Errorf("requests %v, want header, envelope, tables and %d runs", r.server.log(), c.runs)
			}
			r.server.Close()
			r.restart()
			rel, err := r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{})
			if err != nil {
				t.Fatal(err)
			}
			stats, err := r.run(t.Context(), rel, quiet)
			if err != nil || stats.Fetched != 0 {
				t.Fatalf("run = %+v, %v; want all of it from the store", stats, err)
			}
			r.holds(v2, nil)
			if stats.Written+stats.Unchanged != int64(len(v2)) {
				t.Errorf("%+v does not add up to %d bytes", stats, len(v2))
			}
		})
	}
}

// A second install of the same release costs the envelope, or with an empty
// store also the tables.
func TestInstallAgainCostsNextToNothing(t *testing.T) {
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	_, img, rec, _ := recipe(t, data, "full")
	tables := img.Chunks.Length + rec.Table.Length
	r := newRig(t, data, v1, nil)
	r.install(ModeStore)
	for _, clean := range []bool{false, true} {
		want := int64(0)
		if clean {
			if err := r.engine.Clean(); err != nil {
				t.Fatal(err)
			}
			want = tables
		}
		r.restart()
		rel, stats := r.install(ModeStore)
		if want += rel.Download.Minimum; stats.Fetched != want || stats.Written != 0 || stats.Unchanged != int64(len(v2)) {
			t.Errorf("clean store %v: %+v, want %d bytes fetched", clean, stats, want)
		}
	}
	// With a record of what the slot holds, Inspect knows it beforehand.
	r.o.Records = func() []update.SlotRecord {
		return []update.SlotRecord{{Slot: "b", Class: "rootfs", Digest: bundle.Sum(v2).String()}}
	}
	r.engine.Clean()
	r.restart()
	rel, stats := r.install(ModeStore)
	if rel.Download.Expected != stats.Fetched || rel.Download.Maximum < rel.Download.Expected+rec.Data.Length {
		t.Errorf("inspect said %+v, %d bytes fetched", rel.Download, stats.Fetched)
	}
	// A record that is wrong costs what the recipe does, and no more.
	spoil(t, r.o.Slots["rootfs"]["b"], 5*chunkSize)
	r.engine.Clean()
	r.restart()
	if rel, stats = r.install(ModeStore); stats.Fetched > rel.Download.Maximum {
		t.Errorf("inspect said %+v, %d bytes fetched", rel.Download, stats.Fetched)
	}
	r.holds(v2, nil)
}

// Whatever the daemon's deaths and a power cut leave of the store, a finished
// chunk is not fetched again, and the result is right.
func TestKilledBetweenRuns(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	v, bimg, rec, entries := recipe(t, data, "full")
	img := &image{Image: bimg, recipe: rec, entries: entries, units: chunkUnits(entries)}
	lacks := []int{1, 2, 5, 7, 8, 10, 0}
	killed, kept := 0, 0
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 3))
		r := newRig(t, data, v1, spotted(v2, lacks...))
		rel := r.inspect(ModeStore)
		kills, finished := 0, make(map[int]int)
		for {
			ctx, cancel := context.WithCancel(t.Context())
			broken := false
			r.server.mu.Lock()
			r.server.cut = func(i int, off, n int64) int64 {
				if i < 3 || broken || kills > 5 || n < 1000 {
					return n
				}
				if rng.IntN(3) == 0 {
					return n // and break one of the next runs
				}
				broken = true
				return rng.Int64N(n)
			}
			r.server.broken = func(int) {
				time.Sleep(5 * time.Millisecond) // what was sent gets to the store
				cancel()
			}
			r.server.mu.Unlock()
			_, err := r.run(ctx, rel, quiet)
			cancel()
			if err == nil {
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if kills++; rng.IntN(2) == 0 {
				// What was not flushed may be lost, and what is there instead is noise.
				if path := r.dataFile(); path != "" {
					if info, err := os.Stat(path); err == nil && info.Size() > 100 {
						appendTo(t, path, noise(seed, rng.IntN(2*chunkSize)))
					}
				}
			}
			for i, b := range r.storedChunks(img) {
				if bundle.Sum(b) == entries[i].Digest && finished[i] == 0 {
					finished[i] = r.server.often(v.PayloadOffset+entries[i].Offset, int64(entries[i].Length))
				}
			}
			r.restart()
			if rel, err = r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		r.holds(v2, nil)
		for i, n := range finished {
			if got := r.server.often(v.PayloadOffset+entries[i].Offset, int64(entries[i].Length)); got != n {
				t.Errorf("seed %d: chunk %d was stored after %d times, and came %d times", seed, i, n, got)
			}
		}
		for i := range entries {
			got := r.server.often(v.PayloadOffset+entries[i].Offset, int64(entries[i].Length))
			if !slices.Contains(lacks, i) && i != 4 && got > 0 {
				t.Errorf("seed %d: chunk %d is in the slot, and came %d times", seed, i, got)
			}
		}
		killed, kept = killed+kills, kept+len(finished)
	}
	if killed < 24 || kept < 24 {
		t.Errorf("%d kills, %d chunks finished before one; the test proves nothing", killed, kept)
	}
}

// storedChunks is what the store has in the place of each chunk.
func (r *rig) storedChunks(img *image) map[int][]byte {
	out := make(map[int][]byte)
	b, _ := os.ReadFile(r.dataFile())
	there := img.locate(r.engine.store.runsOf(img), int64(len(b)))
	for i := range img.entries {
		if at := there.at(i); at >= 0 {
			out[i] = b[at : at+int64(img.entries[i].Length)]
		}
	}
	return out
}

// The store is not believed: damage to either of its files costs bytes only.
func TestDamagedStore(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	_, _, rec, entries := recipe(t, data, "full")
	whole := rec.Data.Length - int64(entries[6].Length)
	for name, c := range map[string]struct {
		damage func(data, runs string)
		cost   int64
	}{
		"nothing":      {func(string, string) {}, 0},
		"no data":      {func(data, _ string) { os.Remove(data) }, whole},
		"no runs":      {func(_, runs string) { os.Remove(runs) }, whole},
		"empty runs":   {func(_, runs string) { os.Truncate(runs, 0) }, whole},
		"torn runs":    {func(_, runs string) { os.Truncate(runs, 20) }, whole},
		"endless runs": {func(_, runs string) { os.WriteFile(runs, make([]byte, 1<<20), 0o600) }, whole},
		"other runs": {func(_, runs string) {
			os.WriteFile(runs, appendRuns(nil, []run{{7, 1000}, {100_000, 200_000}}), 0o600)
		}, whole},
		"torn data": {func(data, _ string) { os.Truncate(data, int64(entries[1].Length+entries[2].Length)+100) },
			whole - int64(entries[1].Length+entries[2].Length)},
		"holes in data": {func(data, _ string) {
			f := must(os.OpenFile(data, os.O_RDWR, 0))
			defer f.Close()
			must(f.WriteAt(make([]byte, 10_000), int64(entries[1].Length)+3))
		}, int64(entries[2].Length)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, data, v1, nil)
			copyInto(t, r.o.Slots["rootfs"]["b"], v2[6*chunkSize:7*chunkSize], 6*chunkSize)
			rel := r.inspect(ModeStore)
			if err := r.engine.Download(t.Context(), rel, quiet); err != nil {
				t.Fatal(err)
			}
			c.damage(r.dataFile(), r.dataFile()[:len(r.dataFile())-len(fileData)]+fileRuns)
			before := r.server.total()
			r.restart()
			if _, err := r.run(t.Context(), rel, quiet); err != nil {
				t.Fatal(err)
			}
			r.holds(v2, nil)
			if got := r.server.total() - before; got != c.cost {
				t.Errorf("%d bytes fetched again, want %d", got, c.cost)
			}
		})
	}
}

func copyInto(t testing.TB, path string, b []byte, off int64) {
	t.Helper()
	f := must(os.OpenFile(path, os.O_RDWR, 0))
	defer f.Close()
	must(f.WriteAt(b, off))
}

// The slot loses a chunk between download and install: it is stored before the
// slot is touched, and without a network the slot is not touched at all.
func TestSlotChangesAfterDownload(t *testing.T) {
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	_, _, _, entries := recipe(t, data, "full")
	for _, c := range []struct {
		online bool
		budget int64
		want   string
	}{{true, 0, ""}, {false, 0, "any"}, {true, 1, update.NameOverBudget}} {
		r := newRig(t, data, v1, spotted(v2, 2, 3))
		rel := r.inspect(ModeStore)
		if err := r.engine.Download(t.Context(), rel, quiet); err != nil {
			t.Fatal(err)
		}
		for _, i := range []int64{6, 7, 10} {
			spoil(t, r.o.Slots["rootfs"]["b"], i*chunkSize+99)
		}
		before, requests, slot := r.server.total(), len(r.server.log()), r.target()
		if c.budget > 0 {
			r.o.ByteBudget = rel.Download.Expected
			r.restart()
			rel.Job = 7
			p := must(r.engine.planOf(t.Context(), rel))
			p.begin(7)
			p.before = r.o.ByteBudget - int64(entries[6].Length)
		}
		if !c.online {
			r.server.Close()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300_000_000)
		if c.online {
			ctx = t.Context()
		}
		_, err := r.engine.Install(ctx, rel, quiet)
		cancel()
		if c.want != "" {
			if c.want != "any" { // where there is no network, our patience ends it
				wantName(t, err, c.want)
			}
			if err == nil || !bytes.Equal(r.target(), slot) {
				t.Errorf("%+v: %v, or the slot was touched", c, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		r.holds(v2, nil)
		want := int64(entries[6].Length + entries[7].Length + entries[10].Length)
		if got := r.server.total() - before; got != want || len(r.server.log()) != requests+2 {
			t.Errorf("%d bytes in %v, want %d in two ranges", got, r.server.log()[requests:], want)
		}
	}
}

func bytesOf(runs []run) int64 { return length(slices.Values(runs)) }

func TestLocate(t *testing.T) {
	_, v2 := systems()
	_, bimg, rec, entries := recipe(t, build(t, nil, "rootfs", nil, v2), "full")
	img := &image{Image: bimg, recipe: rec, entries: entries, units: chunkUnits(entries)}
	start := func(i int) int64 { return entries[i].Offset - rec.Data.Offset }
	all := slices.Collect(join(chunkUnits(entries), bundle.Order(len(entries)), rec.Data.Offset))
	if len(all) != 1 || all[0] != (run{0, rec.Data.Length}) {
		t.Fatalf("all chunks make %v", all)
	}
	two := slices.Collect(join(chunkUnits(entries), slices.Values([]int{2, 8, 9}), rec.Data.Offset))
	there := img.locate(two, bytesOf(two))
	for i := range entries {
		want := map[int]int64{2: 0, 8: int64(entries[2].Length), 9: int64(entries[2].Length + entries[8].Length)}[i]
		if i != 2 && i != 8 && i != 9 {
			want = -1
		}
		if got := there.at(i); got != want {
			t.Errorf("chunk %d is at %d, want %d", i, got, want)
		}
	}
	// The last copy counts, if it is there in full.
	again := append(two, run{start(8) - 5, int64(entries[8].Length) + 5})
	there = img.locate(again, bytesOf(again))
	if got := there.at(8); got != bytesOf(two)+5 {
		t.Errorf("second copy is at %d, want %d", got, bytesOf(two)+5)
	}
	there = img.locate(again, bytesOf(again)-1)
	if got := there.at(8); got != int64(entries[2].Length) {
		t.Errorf("with a torn second copy the chunk is at %d", got)
	}
	for n, want := range map[int64]int{0: 0, 1: 1, two[0].n: 1, two[0].n + 1: 2, bytesOf(two): 2, bytesOf(two) + 9: 2} {
		if got := cutAt(slices.Clone(two), n); len(got) != want || bytesOf(got) != min(n, bytesOf(two)) {
			t.Errorf("cut at %d: %v", n, got)
		}
	}
}

func FuzzRuns(f *testing.F) {
	_, v2 := systems()
	_, bimg, rec, entries := recipe(f, build(f, nil, "rootfs", nil, v2), "full")
	img := &image{Image: bimg, recipe: rec, entries: entries, units: chunkUnits(entries)}
	f.Add(appendRuns(nil, []run{{0, 10}, {rec.Data.Length - 1, 1}}), int64(11))
	f.Add(appendRuns(nil, []run{{-1, 10}}), int64(0))
	f.Add([]byte{1}, int64(1<<62))
	half, whole := rec.Data.Length/2, rec.Data.Length
	f.Add(appendRuns(nil, []run{{0, whole}, {whole / 4, half}, {half, 9}, {whole / 3, whole / 5}}), whole+half+whole/5)
	f.Add(appendRuns(nil, []run{{half, half}, {0, whole}, {whole / 8, half}}), 2*whole)
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		runs := parseRuns(b, rec.Data.Length)
		if runs == nil {
			return
		}
		if got := appendRuns(nil, runs); !bytes.Equal(got, b) {
			t.Fatalf("runs of %x are written as %x", b, got)
		}
		there := img.locate(runs, size)
		for i, e := range entries {
			// By the rule itself, one unit after the other.
			want, base := int64(-1), int64(0)
			for _, r := range runs {
				skip := e.Offset - rec.Data.Offset - r.off
				if end := skip + int64(e.Length); e.Length > 0 && skip >= 0 && end <= r.n && base+end <= size {
					want = base + skip
				}
				if base += r.n; base >= size {
					break
				}
			}
			if got := there.at(i); got != want {
				t.Fatalf("chunk %d is at %d of %d, want %d", i, got, size, want)
			}
		}
		if n := bytesOf(cutAt(runs, max(0, size))); n > max(0, size) {
			t.Fatalf("cut at %d leaves %d", size, n)
		}
	})
}
