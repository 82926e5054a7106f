// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// large is a pair of systems of 8 MiB, whose delta has a patch for nearly every chunk.
func large() (v1, v2 []byte) {
	v1 = noise(21, 8<<20-777)
	v2 = bytes.Clone(v1)
	for off := 500; off < len(v2)-100; off += chunkSize / 3 {
		copy(v2[off:], noise(uint64(off), 40))
	}
	// Some of it moved, so that patches read more than the place of their chunk.
	copy(v2[20*chunkSize+5000:], v1[60*chunkSize:64*chunkSize])
	return v1, v2
}

// unfit are the chunks, in the order of the data, that a source does not yield;
// found with the decoder alone.
func unfit(t testing.TB, data, source []byte) (list []int) {
	t.Helper()
	v, img, rec, entries := recipe(t, data, "delta")
	off := v.PayloadOffset + img.Chunks.Offset
	digests := must(bundle.ParseChunks(img, data[off:off+img.Chunks.Length]))
	d := must(bundle.NewDecoder(nil))
	defer d.Close()
	src := bytes.NewReader(source)
	for i := range bundle.Order(len(entries)) {
		e := entries[i]
		enc := data[v.PayloadOffset+e.Offset:][:e.Length]
		err := d.Decode(make([]byte, img.ChunkLength(i)), digests[i], e, enc, bundle.Basis{Source: src, SourceSize: rec.Source.Size})
		if errors.Is(err, bundle.ErrSource) {
			list = append(list, i)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// One, ten and a thousand blocks of the source are not what the delta was made
// for. That costs the chunks that need them from the full recipe, in as few
// ranges as they make, and not a byte more.
func TestTouchedBlocks(t *testing.T) {
	t.Parallel()
	v1, v2 := large()
	data := build(t, plain, "rootfs", v1, v2)
	_, img, _, _ := recipe(t, data, "delta")
	_, _, _, full := recipe(t, data, "full")
	for _, blocks := range []int{1, 10, 1000} {
		touched := bytes.Clone(v1)
		rng := rand.New(rand.NewPCG(uint64(blocks), 1))
		for _, k := range rng.Perm(len(v1) / blockSize)[:blocks] {
			touched[k*blockSize+rng.IntN(blockSize)] ^= 0x20
		}
		list := unfit(t, data, touched)
		runs := slices.Collect(join(chunkUnits(full), slices.Values(list), 0))
		extra := img.Full().Table.Length + bytesOf(runs)
		encoded := int64(0)
		for _, i := range list {
			encoded += int64(full[i].Length)
		}
		if bytesOf(runs) != encoded || len(list) == 0 || len(list) > 2*blocks {
			t.Fatalf("%d blocks make %d chunks unfit, of %d bytes, in ranges of %d; the test proves nothing", blocks, len(list), encoded, bytesOf(runs))
		}
		if blocks == 1000 && len(runs)*2 > len(list) {
			t.Fatalf("%d chunks make %d ranges; the test proves nothing", len(list), len(runs))
		}
		for _, mode := range modes {
			for _, c := range []struct {
				fallback string
				budget   int64 // beyond what inspect expects; -1: none
				want     string
			}{
				{FallbackFull, -1, ""}, {FallbackFull, extra, ""}, {FallbackFull, extra - 1, update.NameOverBudget},
				{FallbackFull, 0, update.NameOverBudget}, {FallbackWait, -1, update.NameOverBudget}, {FallbackFail, -1, update.NameSourceChanged},
			} {
				if blocks != 10 && c.fallback != FallbackFull {
					continue
				}
				t.Run(fmt.Sprint(blocks, " ", mode, c), func(t *testing.T) {
					r := newRig(t, data, nil, nil)
					r.fill(touched, nil, len(v2))
					r.o.Fallback = c.fallback
					if c.budget >= 0 {
						r.o.ByteBudget = r.inspect(mode).Download.Expected + c.budget
					}
					r.restart()
					start, requests := r.server.total(), len(r.server.log())
					rel := r.inspect(mode)
					stats, err := r.run(t.Context(), rel, quiet)
					spent := r.server.total() - start
					if c.want != "" {
						wantName(t, err, c.want)
						if c.budget >= 0 && spent > r.o.ByteBudget {
							t.Errorf("%d bytes served, the budget is %d", spent, r.o.ByteBudget)
						}
						if c.fallback != FallbackFull && spent > rel.Download.Expected {
							t.Errorf("%d bytes served, inspect expected %d", spent, rel.Download.Expected)
						}
						if !bytes.Equal(r.target()[:firstBlock], make([]byte, firstBlock)) {
							t.Error("a slot that is not complete has a first block")
						}
						if c.budget > 0 && !strings.Contains(err.Error(), fmt.Sprintf("%d chunks have to come from the full recipe", len(list))) {
							t.Errorf("error %q does not say what it is about", err)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(r.target(), v2) {
						t.Fatal("the slot is not what was installed")
					}
					if want := rel.Download.Expected + extra; spent != want || stats.Fetched != want || want > rel.Download.Maximum {
						t.Errorf("%d bytes served, %d fetched, want %d; inspect says at most %d", spent, stats.Fetched, want, rel.Download.Maximum)
					}
					// Header, envelope, tables, data, the full recipe's table.
					if got, want := len(r.server.log())-requests, 5+len(runs); got != want {
						t.Errorf("%d requests for %d chunks in %d runs, want %d", got, len(list), len(runs), want)
					}
					if want := stats.Reused + lengths(list, img); want != int64(len(v2)) {
						t.Errorf("%d bytes reused and the rest of %d chunks make %d, want %d", stats.Reused, len(list), want, len(v2))
					}
				})
			}
		}
	}
}

// lengths is the number of bytes in a list of chunks.
func lengths(list []int, img *bundle.Image) (n int64) {
	for _, i := range list {
		n += int64(img.ChunkLength(i))
	}
	return n
}

// What was written before the budget ended the job is not fetched again by the
// next one, which may spend more.
func TestGoesOnAfterTheBudget(t *testing.T) {
	v1, v2 := large()
	data := build(t, plain, "rootfs", v1, v2)
	_, img, _, full := recipe(t, data, "full")
	touched := bytes.Clone(v1)
	for _, k := range []int{10, 11, 40, 90} {
		touched[k*chunkSize+chunkSize/2] ^= 1
	}
	list := unfit(t, data, touched)
	for _, mode := range modes {
		r := newRig(t, data, nil, nil)
		r.fill(touched, nil, len(v2))
		r.o.ByteBudget = r.inspect(mode).Download.Expected + 30_000
		r.restart()
		_, err := r.run(t.Context(), r.inspect(mode), quiet)
		wantName(t, err, update.NameOverBudget)
		r.o.ByteBudget = 0
		r.restart()
		_, stats := r.install(mode)
		if got := r.target(); !bytes.Equal(got, v2) {
			t.Fatal("the slot is not what was installed")
		}
		most := length(join(chunkUnits(full), slices.Values(list), 0)) + 40_000
		if stats.Fetched > most || stats.Written > lengths(list, img)+firstBlock {
			t.Errorf("%s: %+v, want at most %d bytes fetched", mode, stats, most)
		}
	}
}
