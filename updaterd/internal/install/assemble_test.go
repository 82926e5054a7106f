// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/blocks"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

func withBlocks(s *bundle.Spec) { s.Blocks = true }

// relatives are two systems without a delta from one to the other: much of the
// new one lies elsewhere in the old one, at steps of a block.
func relatives() (v1, v2 []byte) {
	v1 = noise(31, 13*chunkSize)
	v2 = noise(32, 12*chunkSize-1234)
	clear(v2[4*chunkSize : 5*chunkSize])
	move := func(to, from, n int) { copy(v2[to:], v1[from*blockSize:(from+n)*blockSize]) }
	move(0, 5, 12)
	move(1*chunkSize, 100, 40)          // two chunks and a half
	move(5*chunkSize+2*blockSize, 3, 9) // begins and ends within frames
	move(6*chunkSize, 6*chunkSize/blockSize, 3*chunkSize/blockSize)
	copy(v2[10*chunkSize:], bytes.Repeat([]byte("text that compresses "), 2000)) // has a prefix
	return v1, v2
}

// framesOf is the blocks recipe of a bundle, as the engine reads it.
func framesOf(t testing.TB, data []byte) *image {
	t.Helper()
	n := must(bundle.ParseHeader(data))
	v := must(bundle.Verify(data[:bundle.HeaderSize+n], newKey().keyring.Policy(1), time.Time{}))
	img := &image{Image: &v.Manifest.Images[0]}
	if img.recipe = img.Blocks(); img.recipe == nil {
		t.Fatal("bundle has no blocks recipe")
	}
	at := func(e bundle.Extent) []byte { return data[v.PayloadOffset+e.Offset:][:e.Length] }
	if err := img.parse(at(img.Chunks.Extent), at(img.recipe.Table.Extent)); err != nil {
		t.Fatal(err)
	}
	return img
}

// absent lists the frames of image that no source has at a step of a block, by
// looking for their bytes.
func absent(img *image, image []byte, sources ...[]byte) (list []int) {
	r := img.recipe
	for n := range img.units.count() {
		u := nth(img.units, n)
		i, k := u/img.frames.per, u%img.frames.per
		from := int64(i)*img.ChunkSize + int64(k)*r.Frame
		frame := image[from : from+int64(img.FrameLength(r, i, k))]
		found := false
		for _, src := range sources {
			for at := int64(0); at+r.Frame <= int64(len(src)) && !found; at += blockSize {
				found = bytes.Equal(src[at:at+r.Frame], frame)
			}
		}
		if _, n := img.units.place(u); !found && n > 0 {
			list = append(list, u)
		}
	}
	return list
}

// relativeRig is a device that runs v1 and for which there is no delta.
func relativeRig(t testing.TB, data, v1, target []byte) *rig {
	r := newRig(t, data, v1, target)
	r.o.BuildID = "some-other-build"
	r.o.Records = func() []update.SlotRecord {
		return []update.SlotRecord{{Slot: "a", Class: "rootfs", Digest: bundle.Sum(v1).String(), Size: int64(len(v1)), Verified: true}}
	}
	r.restart()
	return r
}

// What the old system has, wherever it lies, is not fetched; the rest comes in
// as few ranges as it makes, and inspect knew it.
func TestBlocksFromAnotherSystem(t *testing.T) {
	t.Parallel()
	v1, v2 := relatives()
	data := build(t, withBlocks, "rootfs", nil, v2)
	img := framesOf(t, data)
	for _, mode := range modes {
		for name, target := range map[string][]byte{"empty target": nil, "noise in the target": noise(3, slotSize)} {
			t.Run(mode+" "+name, func(t *testing.T) {
				r := relativeRig(t, data, v1, target)
				rel := r.inspect(mode)
				if rel.Images[0].Recipe != bundle.KindBlocks {
					t.Fatalf("recipe %s", rel.Images[0].Recipe)
				}
				stats, err := r.run(t.Context(), rel, quiet)
				if err != nil {
					t.Fatal(err)
				}
				r.holds(v2, target)
				runs := slices.Collect(join(img.units, slices.Values(absent(img, v2, v1)), 0))
				want := rel.Download.Minimum + bytesOf(runs)
				if mode == ModeStore {
					want += img.Chunks.Length + img.recipe.Table.Length
				}
				if got := r.server.total(); got != want || rel.Download.Expected != want || stats.Fetched != want || rel.Images[0].Download >= img.Full().Data.Length {
					t.Errorf("%d bytes served, %d fetched, want %d; inspect said %+v", got, stats.Fetched, want, rel)
				}
				// Header, envelope, both tables.
				if got := len(r.server.log()); got > 4+len(runs) {
					t.Errorf("requests %v, want %d runs", r.server.log(), len(runs))
				}
				if stats.Reused < 20*img.recipe.Frame || stats.Written+stats.Unchanged != int64(len(v2)) {
					t.Errorf("stats %+v", stats)
				}
				if err := r.engine.Verify(t.Context(), rel, quiet); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestBlocksInStoreNeedNoNetwork(t *testing.T) {
	v1, v2 := relatives()
	r := relativeRig(t, build(t, withBlocks, "rootfs", nil, v2), v1, noise(3, slotSize))
	rel := r.inspect(ModeStore)
	if err := r.engine.Download(t.Context(), rel, quiet); err != nil {
		t.Fatal(err)
	}
	r.server.Close()
	r.restart()
	rel, err := r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if stats, err := r.run(t.Context(), rel, quiet); err != nil || stats.Fetched != 0 {
		t.Fatalf("%+v, %v", stats, err)
	}
	r.holds(v2, noise(3, slotSize))
}

// Blocks of the old system change after they were indexed: each costs its
// frames, by policy; nothing else, and nothing wrong is written.
func TestBlocksTouchedAfterTheIndex(t *testing.T) {
	t.Parallel()
	v1, v2 := relatives()
	data := build(t, withBlocks, "rootfs", nil, v2)
	img := framesOf(t, data)
	touched := bytes.Clone(v1)
	for _, block := range []int{6, 101, 110, 111, 112, 6*chunkSize/blockSize + 20} {
		touched[block*blockSize+17] ^= 4
	}
	was, is := absent(img, v2, v1), absent(img, v2, touched)
	if len(is) < len(was)+4 {
		t.Fatalf("%d frames are absent, then %d; the test proves nothing", len(was), len(is))
	}
	for _, mode := range modes {
		for _, c := range []struct {
			fallback string
			budget   bool
			want     string // in stream mode; store mode finds out while it downloads
		}{{FallbackFull, false, ""}, {FallbackFull, true, update.NameOverBudget}, {FallbackWait, false, update.NameOverBudget}, {FallbackFail, false, update.NameSourceChanged}} {
			t.Run(fmt.Sprint(mode, c), func(t *testing.T) {
				r := relativeRig(t, data, v1, nil)
				r.o.Fallback = c.fallback
				if c.budget {
					r.o.ByteBudget = r.inspect(mode).Download.Expected + 100
				}
				r.restart()
				start := r.server.total()
				rel := r.inspect(mode) // makes the index
				copyInto(t, r.o.Slots["rootfs"]["a"], touched, 0)
				stats, err := r.run(t.Context(), rel, quiet)
				spent := r.server.total() - start
				if c.budget && spent > r.o.ByteBudget {
					t.Errorf("%d bytes served, budget %d", spent, r.o.ByteBudget)
				}
				if c.want != "" && (mode == ModeStream || c.budget) {
					wantName(t, err, c.want)
					if b := r.target()[:firstBlock]; !bytes.Equal(b, make([]byte, firstBlock)) {
						t.Error("the slot has a first block")
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				r.holds(v2, nil)
				extra := int64(0)
				for _, u := range is {
					_, n := img.units.place(u)
					extra += int64(n)
				}
				for _, u := range was {
					_, n := img.units.place(u)
					extra -= int64(n)
				}
				// Between them and frames that were absent before there may be a bridge.
				if least, most := rel.Download.Expected+extra-blocks.Gap, rel.Download.Expected+extra+int64(len(is))*blocks.Gap; spent < least || spent > most || stats.Fetched != spent {
					t.Errorf("%d bytes served, %d fetched, want %d to %d", spent, stats.Fetched, least, most)
				}
			})
		}
	}
}

// The target slot is a source, too, but only for what is made of it before it is
// overwritten.
func TestBlocksFromTheTarget(t *testing.T) {
	t.Parallel()
	v2 := noise(52, 12*chunkSize-1234)
	data := build(t, withBlocks, "rootfs", nil, v2)
	target := noise(50, slotSize)
	// Content of late chunks early, of early ones late, and of both chunks in each
	// other's place.
	copy(target[2*chunkSize:], v2[8*chunkSize:9*chunkSize])
	copy(target[10*chunkSize+blockSize:], v2[4*chunkSize:5*chunkSize])
	copy(target[5*chunkSize:], v2[6*chunkSize:7*chunkSize])
	copy(target[6*chunkSize:], v2[5*chunkSize:6*chunkSize])
	copy(target[13*chunkSize:], v2[9*chunkSize:10*chunkSize]) // behind the image
	copy(target[1*chunkSize:], v2[1*chunkSize:2*chunkSize])   // in place
	copy(target[0:], v2[2*chunkSize:2*chunkSize+8*blockSize]) // the first block is cleared
	for _, mode := range modes {
		r := relativeRig(t, data, noise(51, 13*chunkSize), target)
		rel := r.inspect(mode)
		stats, err := r.run(t.Context(), rel, quiet)
		if err != nil {
			t.Fatal(err)
		}
		r.holds(v2, target)
		// Chunks 4, 5 and 9 in full; three frames of chunk 2 lie in chunk 0, which is
		// written last, and one in its first block, which is not there.
		if want := int64(3*chunkSize) + 3*framesOf(t, data).recipe.Frame; stats.Reused != want {
			t.Errorf("%s: %d bytes reused, want %d", mode, stats.Reused, want)
		}
	}
}

// Kills, cuts, damage to the store, the index and the slots, in any order.
func TestBlocksRandomMisfortune(t *testing.T) {
	t.Parallel()
	v1, v2 := relatives()
	data := build(t, withBlocks, "rootfs", nil, v2)
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 11))
		before := bytes.Clone(noise(60, slotSize))
		copy(before[7*chunkSize:], v2[2*chunkSize:4*chunkSize])
		r := relativeRig(t, data, v1, before)
		r.server.cut = func(i int, _, n int64) int64 {
			if i < 30 && i%3 == int(seed%3) {
				return n / 2
			}
			return n
		}
		rel := r.inspect(modes[seed%2])
		for try := 0; ; try++ {
			ctx, cancel := context.WithCancel(t.Context())
			reports := rng.IntN(14)
			_, err := r.run(ctx, rel, func(update.Progress) {
				if reports--; reports < 0 && try < 6 {
					cancel()
				}
			})
			cancel()
			if err == nil {
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			spoil(t, r.o.Slots["rootfs"]["b"], firstBlock+rng.Int64N(int64(len(v2)-firstBlock)))
			spoil(t, r.o.Slots["rootfs"]["a"], rng.Int64N(int64(len(v1))))
			if path := r.dataFile(); path != "" {
				if info, err := os.Stat(path); err == nil && info.Size() > 0 {
					spoil(t, path, rng.Int64N(info.Size()))
				}
			}
			for _, path := range must(filepath.Glob(filepath.Join(r.o.Dir, "*."+indexName))) {
				spoil(t, path, rng.Int64N(1000))
			}
			r.restart()
			if rel, err = r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		r.holds(v2, before)
	}
}

// The index of a slot whose content is recorded is made once for it; a file
// that is not one, or not all of one, is made anew.
func TestBlockIndexIsKept(t *testing.T) {
	v1, v2 := relatives()
	r := relativeRig(t, build(t, withBlocks, "rootfs", nil, v2), v1, nil)
	r.inspect(ModeStream)
	paths := must(filepath.Glob(filepath.Join(r.o.Dir, "*")))
	want := filepath.Join(r.o.Dir, strings.TrimPrefix(bundle.Sum(v1).String(), "sha256:")+"."+indexName)
	if len(paths) != 1 || paths[0] != want {
		t.Fatalf("inspect left %v, want %s", paths, want)
	}
	good := must(os.ReadFile(want))
	if len(good) != len(v1)/blockSize*hashSize {
		t.Errorf("index has %d bytes", len(good))
	}
	for _, bad := range [][]byte{nil, good[:80], append(bytes.Clone(good), 0)} {
		write(t, want, bad)
		r.restart()
		if rel := r.inspect(ModeStream); rel.Download.Expected > 300_000 {
			t.Errorf("with a bad index %d bytes are expected", rel.Download.Expected)
		}
		if !bytes.Equal(must(os.ReadFile(want)), good) {
			t.Error("the index is not made anew")
		}
	}
	// What is recorded to be in a slot will be asked for again.
	if err := r.engine.Clean(); err != nil {
		t.Fatal(err)
	}
	if left := must(os.ReadDir(r.o.Dir)); len(left) != 1 || left[0].Name() != filepath.Base(want) {
		t.Errorf("Clean left %v, want the index alone", left)
	}
	r.o.Records = nil
	r.restart()
	if err := r.engine.Clean(); err != nil {
		t.Fatal(err)
	}
	if left := must(os.ReadDir(r.o.Dir)); len(left) > 0 {
		t.Errorf("without records Clean left %v", left)
	}
}

// A medium that loses a chunk once gets it again, also if it is the only one.
func TestBlocksAreWrittenAgain(t *testing.T) {
	v1, v2 := relatives()
	data := build(t, withBlocks, "rootfs", nil, v2)
	for _, mode := range modes {
		for _, target := range [][]byte{nil, append([]byte{^v2[0]}, v2[1:]...)} {
			r := relativeRig(t, data, v1, target)
			lost := false
			m := &flash{}
			m.corrupt = func(off int64, p []byte) {
				if off == 6*chunkSize && !lost && m.writes > 1 && len(m.cache) == 0 && bytes.Equal(m.stable[7*chunkSize:8*chunkSize], v2[7*chunkSize:8*chunkSize]) {
					lost = true
					p[5000] ^= 1
				}
			}
			r.onMedium(m)
			r.install(mode)
			if !lost || !bytes.Equal(m.stable[:len(v2)], v2) {
				t.Errorf("%s: lost %v, content equal %v", mode, lost, bytes.Equal(m.stable[:len(v2)], v2))
			}
		}
	}
}
