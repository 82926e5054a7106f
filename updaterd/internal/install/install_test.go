// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

var modes = []string{ModeStore, ModeStream}

// What inspect promises is what the server sends.
func TestUndisturbedRunCostsWhatInspectSays(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	for _, mode := range modes {
		for _, kind := range []string{"delta", "full"} {
			t.Run(mode+" "+kind, func(t *testing.T) {
				before := noise(9, slotSize)
				r := newRig(t, data, v1, before)
				if kind == "full" {
					r.o.BuildID = "another-build"
					r.restart()
				}
				var last update.Progress
				rel := r.inspect(mode)
				if rel.Mode != mode || rel.Images[0].Recipe != kind || rel.Version != "2.0" || rel.Target != "b" {
					t.Fatalf("Inspect = %+v, want mode %s and a %s recipe", rel, mode, kind)
				}
				stats, err := r.run(t.Context(), rel, func(p update.Progress) {
					if p.Stage == last.Stage && (p.Done < last.Done || p.Done > p.Total) {
						t.Errorf("progress goes from %+v to %+v", last, p)
					}
					last = p
				})
				if err != nil {
					t.Fatal(err)
				}
				r.holds(v2, before)
				if got := r.server.total(); got != rel.Download.Expected || stats.Fetched != got {
					t.Errorf("served %d, fetched %d bytes, inspect promised %d; requests %v", got, stats.Fetched, rel.Download.Expected, r.server.log())
				}
				if stats.Written != int64(len(v2)) || stats.Unchanged != 0 {
					t.Errorf("stats = %+v, want all of %d bytes written", stats, len(v2))
				}
				if last.Stage != "verify" || last.Done != int64(len(v2)) || last.Total != last.Done {
					t.Errorf("last progress = %+v", last)
				}
				want := 4 // header, envelope, tables, data
				if kind == "full" {
					want = 5 // its table does not follow the chunk table
				}
				if mode == ModeStore && len(r.server.log()) != want {
					t.Errorf("requests = %v, want %d", r.server.log(), want)
				}
				if err := r.engine.Verify(t.Context(), rel, quiet); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Only what differs is fetched (in stream mode) and written.
func TestWhatIsThereIsNotTouched(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	v, img, rec, entries := recipe(t, data, "delta")
	half := bytes.Clone(v2)
	copy(half[2*chunkSize:], noise(5, chunkSize))
	copy(half[8*chunkSize:], noise(6, 2*chunkSize))
	for _, mode := range modes {
		r := newRig(t, data, v1, half)
		_, stats := r.install(mode)
		r.holds(v2, nil)
		// Chunk 0 stays, but for its first block.
		if want := int64(3*chunkSize + firstBlock); stats.Written != want {
			t.Errorf("%s: %d bytes written, want %d", mode, stats.Written, want)
		}
		if mode == ModeStream {
			if n := len(r.server.log()); n != 5 {
				t.Errorf("requests = %v, want header, envelope, tables and two runs", r.server.log())
			}
			want := v.PayloadOffset + img.Chunks.Length + rec.Table.Length
			for _, i := range []int{2, 8, 9} {
				want += int64(entries[i].Length)
			}
			if got := r.server.total(); got != want || stats.Fetched != want {
				t.Errorf("%d bytes served, %d fetched, want %d", got, stats.Fetched, want)
			}
		}
		// Once more: nothing at all.
		r.restart()
		rel, stats := r.install(mode)
		if stats.Written != 0 || stats.Unchanged != int64(len(v2)) {
			t.Errorf("%s: second install: %+v, want everything unchanged", mode, stats)
		}
		if mode == ModeStream && rel.Download.Minimum < stats.Fetched {
			t.Errorf("second install fetched %d bytes, minimum is said to be %d", stats.Fetched, rel.Download.Minimum)
		}
	}
}

// However often the link is cut, no byte is sent twice.
func TestCutsCostNothing(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	for _, mode := range modes {
		for _, kind := range []string{"delta", "full"} {
			for _, k := range map[string][]int64{"delta": {1, 15, 4096}, "full": {5_000, 70_001}}[kind] {
				r := newRig(t, data, v1, nil)
				if kind == "full" {
					r.o.BuildID = ""
					r.restart()
				}
				r.server.cut = func(i int, _, n int64) int64 {
					if i < 20 {
						return k
					}
					return n
				}
				rel, _ := r.install(mode)
				r.holds(v2, nil)
				if got := r.server.total(); got != rel.Download.Expected {
					t.Errorf("%s %s, cut every %d bytes: %d bytes served, want %d", mode, kind, k, got, rel.Download.Expected)
				}
				if n := r.server.often(0, int64(len(data))); n != 1 {
					t.Errorf("%s %s, cut every %d bytes: a byte was sent %d times", mode, kind, k, n)
				}
			}
		}
	}
}

// A daemon that is killed goes on at the last finished chunk, and finds noise
// in what it had not finished.
func TestKilledAndRestarted(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	v, _, rec, entries := recipe(t, data, "full")
	for _, mode := range modes {
		for _, kill := range []int64{1, 3 * chunkSize, 7*chunkSize + 100, rec.Data.Length - 1} {
			t.Run(fmt.Sprintf("%s %d", mode, kill), func(t *testing.T) {
				r := newRig(t, data, v1, noise(4, slotSize))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				rel := r.inspect(mode)
				report := quiet
				if mode == ModeStream {
					report = func(p update.Progress) {
						if p.Stage == "install" && p.Done >= kill {
							cancel()
						}
					}
				} else { // which reports by the clock, so the link is the one to tell
					r.server.cut = func(_ int, off, n int64) int64 { return max(0, v.PayloadOffset+rec.Data.Offset+kill-off) }
					r.server.broken = func(int) {
						for info, _ := os.Stat(r.dataFile()); info == nil || info.Size() < kill; info, _ = os.Stat(r.dataFile()) {
							time.Sleep(time.Millisecond)
						}
						cancel()
					}
				}
				_, err := r.run(ctx, rel, report)
				cancel()
				r.server.mu.Lock()
				r.server.cut = nil
				r.server.mu.Unlock()
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("run = %v, want context.Canceled", err)
				}
				finished := finishedChunks(r, mode, entries, v2)
				if mode == ModeStream {
					spoil(t, r.o.Slots["rootfs"]["b"], 11*chunkSize+77)
				} else if path := r.dataFile(); path != "" {
					appendTo(t, path, noise(8, 999))
				}
				r.restart()
				rel, err = r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{Mode: rel.Mode})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := r.run(t.Context(), rel, quiet); err != nil {
					t.Fatal(err)
				}
				r.holds(v2, noise(4, slotSize))
				if n := r.server.often(0, v.PayloadOffset); n != 1 {
					t.Errorf("the envelope was fetched %d times", n)
				}
				for _, i := range finished {
					if n := r.server.often(v.PayloadOffset+entries[i].Offset, int64(entries[i].Length)); n > 1 {
						t.Errorf("chunk %d was finished before the kill and fetched %d times", i, n)
					}
				}
				if kill > 5*chunkSize && len(finished) < 3 {
					t.Errorf("only chunks %v were finished before the kill; the test proves nothing", finished)
				}
			})
		}
	}
}

// Noise in a chunk of the target that was finished, or was there before, costs
// that chunk to make, and its block to write.
func TestNoiseInTheTargetCostsOneChunk(t *testing.T) {
	_, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	r := newRig(t, data, nil, v2)
	spoil(t, r.o.Slots["rootfs"]["b"], 6*chunkSize+5)
	_, stats := r.install(ModeStream)
	r.holds(v2, nil)
	if want := int64(blockSize + firstBlock); stats.Written != want || stats.Blocks != 2 {
		t.Errorf("%d bytes in %d blocks written, want one block and the first one (%d)", stats.Written, stats.Blocks, want)
	}
}

// The first block is put aside, so that a kill between the last chunk and it
// does not cost a chunk.
func TestKillBeforeTheFirstBlock(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	for _, mode := range modes {
		r := newRig(t, data, v1, v1)
		ctx, cancel := context.WithCancel(t.Context())
		rel := r.inspect(mode)
		_, err := r.run(ctx, rel, func(p update.Progress) {
			if p.Stage == "verify" {
				cancel()
			}
		})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if b := r.target()[:firstBlock]; !bytes.Equal(b, make([]byte, firstBlock)) {
			t.Fatalf("%s: the first block is in place before the read-back is over", mode)
		}
		r.restart()
		r.server.Close() // nothing is needed from it any more
		rel, err = r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{})
		if err != nil || rel.Mode != mode {
			t.Fatalf("Reopen = %+v, %v; want mode %s again", rel, err, mode)
		}
		stats, err := r.engine.Install(t.Context(), rel, quiet)
		if err != nil || stats.Written != firstBlock || stats.Fetched != 0 {
			t.Fatalf("%s: Install = %+v, %v; want the first block written and nothing fetched", mode, stats, err)
		}
		r.holds(v2, v1)
	}
}

// In store mode installing needs no network, also after a restart.
func TestInstallFromStoreNeedsNoNetwork(t *testing.T) {
	v1, v2 := systems()
	r := newRig(t, build(t, nil, "rootfs", v1, v2), v1, nil)
	rel := r.inspect(ModeAuto)
	if rel.Mode != ModeStore {
		t.Fatalf("auto mode chose %s", rel.Mode)
	}
	before := r.target()
	if err := r.engine.Download(t.Context(), rel, quiet); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.target(), before) {
		t.Error("Download touched the slot")
	}
	r.server.Close()
	r.restart()
	rel, err := r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stats, err := r.run(t.Context(), rel, quiet)
	if err != nil || stats.Fetched != 0 {
		t.Fatalf("run = %+v, %v; want nothing fetched", stats, err)
	}
	r.holds(v2, nil)
	if err := r.engine.Clean(); err != nil {
		t.Fatal(err)
	}
	if left := must(os.ReadDir(r.o.Dir)); len(left) != 0 {
		t.Errorf("Clean left %v", left)
	}
}

// A chunk that goes bad in the store costs that chunk, while downloading or after.
func TestBadStoredChunkIsFetchedAlone(t *testing.T) {
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	v, _, rec, entries := recipe(t, data, "full")
	for _, again := range []bool{true, false} {
		r := newRig(t, data, v1, nil)
		rel := r.inspect(ModeStore)
		if err := r.engine.Download(t.Context(), rel, quiet); err != nil {
			t.Fatal(err)
		}
		e := entries[6]
		spoil(t, r.dataFile(), e.Offset-rec.Data.Offset+17)
		r.restart()
		before := r.server.total()
		if again {
			if err := r.engine.Download(t.Context(), rel, quiet); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.engine.Install(t.Context(), rel, quiet); err != nil {
			t.Fatal(err)
		}
		r.holds(v2, nil)
		if got := r.server.total() - before; got != int64(e.Length) {
			t.Errorf("download again %v: %d bytes for one bad chunk of %d", again, got, e.Length)
		}
		if n := r.server.often(v.PayloadOffset+e.Offset, int64(e.Length)); n != 2 {
			t.Errorf("the bad chunk was fetched %d times, want 2", n)
		}
	}
}

// finishedChunks lists the chunks that are safe: in the store or in the slot.
func finishedChunks(r *rig, mode string, entries []entry, image []byte) (done []int) {
	if mode == ModeStream {
		slot := r.target()
		for i := 1; i < len(entries); i++ {
			a, b := i*chunkSize, min((i+1)*chunkSize, len(image))
			if i != 11 && bytes.Equal(slot[a:b], image[a:b]) {
				done = append(done, i)
			}
		}
		return done
	}
	info, err := os.Stat(r.dataFile())
	if err != nil {
		return nil
	}
	for i, e := range entries {
		if e.Offset-entries[1].Offset+int64(e.Length) <= info.Size() {
			done = append(done, i)
		}
	}
	return done
}

// dataFile is the stored data of the one recipe, or "".
func (r *rig) dataFile() string {
	for _, dir := range must(os.ReadDir(r.o.Dir)) {
		if dir.IsDir() {
			return r.engine.store.path(dir.Name(), fileData)
		}
	}
	return ""
}

func spoil(t testing.TB, path string, off int64) {
	t.Helper()
	f := must(os.OpenFile(path, os.O_RDWR, 0))
	defer f.Close()
	b := make([]byte, 1)
	must(f.ReadAt(b, off))
	b[0] ^= 0x40
	must(f.WriteAt(b, off))
}

func appendTo(t testing.TB, path string, b []byte) {
	t.Helper()
	f := must(os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0))
	defer f.Close()
	must(f.Write(b))
}

func TestVerifyFindsWhatChanged(t *testing.T) {
	v1, v2 := systems()
	r := newRig(t, build(t, nil, "rootfs", nil, v2), v1, nil)
	rel, _ := r.install(ModeStream)
	if err := r.engine.Verify(t.Context(), rel, quiet); err != nil {
		t.Fatal(err)
	}
	spoil(t, r.o.Slots["rootfs"]["b"], int64(len(v2))-1)
	err := r.engine.Verify(t.Context(), rel, quiet)
	wantName(t, err, update.NameMedium)
	if !strings.Contains(err.Error(), "rootfs.b") {
		t.Errorf("error %q does not name the slot", err)
	}
}

type entry = bundle.Entry
