// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	seedSize = 24 // bytes of a seed: what must match exactly for a place to be found
	seedGain = 8  // see finder
	minStep  = 8  // distance of seeds in the source

	maxCandidates = 16 // places compared for one seed

	maxSeeds = 1 << 27 // the step doubles beyond, so that the index stays below 1 GiB
)

// An Index finds places in a source image that resemble a piece of a target.
// It is built once per source; any number of goroutines may call Patch.
type Index struct {
	src   []byte
	unmap func() error

	step    int
	shift   uint      // hash >> shift = bucket
	starts  []uint32  // bucket b holds seeds[starts[b]:starts[b+1]]
	seeds   []uint32  // positions divided by step, ascending in each bucket
	workers sync.Pool // of *worker
}

// NewIndex indexes the first size bytes of src. A regular file is mapped and
// must not change or shrink until Close; anything else is read into memory.
// The index takes 0.75 to 1 times the source's size.
func NewIndex(src io.ReaderAt, size int64) (*Index, error) {
	if size < 0 || size > maxSource || size != int64(int(size)) {
		return nil, fmt.Errorf("index source: size %d is out of range", size)
	}
	x := &Index{step: minStep}
	var ok bool
	if x.src, x.unmap, ok = mapFile(src, int(size)); !ok {
		x.src = make([]byte, size)
		if err := readFull(src, x.src, 0); size > 0 && err != nil {
			return nil, fmt.Errorf("index source: %w", err)
		}
	}
	for len(x.src)/x.step > maxSeeds {
		x.step *= 2
	}
	x.build()
	return x, nil
}

// Close frees the index. No Patch may be running or follow.
func (x *Index) Close() error {
	unmap := x.unmap
	x.src, x.unmap, x.starts, x.seeds = nil, nil, nil, nil
	if unmap != nil {
		return unmap()
	}
	return nil
}

// build counts the seeds of each bucket, turns the counts into ranges and
// fills them; sorting makes the result independent of the goroutines' order.
func (x *Index) build() {
	n := 0
	if len(x.src) >= seedSize {
		n = (len(x.src)-seedSize)/x.step + 1
	}
	width := max(bits.Len(uint(n))-1, 4)
	x.shift = uint(64 - width)
	buckets := 1 << width
	x.starts = make([]uint32, buckets+1)
	x.each(n, func(_ int, b uint64) { atomic.AddUint32(&x.starts[b], 1) })
	sum := uint32(0)
	for b := range x.starts {
		sum += x.starts[b]
		x.starts[b] = sum // the end of bucket b; filling counts it down to the start
	}
	x.seeds = make([]uint32, sum)
	x.each(n, func(i int, b uint64) { x.seeds[atomic.AddUint32(&x.starts[b], ^uint32(0))] = uint32(i) })
	parallel(buckets, func(from, to int) {
		for b := from; b < to; b++ {
			if s := x.seeds[x.starts[b]:x.starts[b+1]]; len(s) > 1 {
				slices.Sort(s)
			}
		}
	})
}

// each calls f with the number and bucket of every seed worth indexing.
func (x *Index) each(n int, f func(i int, bucket uint64)) {
	parallel(n, func(from, to int) {
		for i := from; i < to; i++ {
			if h, ok := hash(x.src[i*x.step:]); ok {
				f(i, h>>x.shift)
			}
		}
	})
}

func (x *Index) seed() int { return seedSize }
func (x *Index) gain() int { return seedGain }

// find implements finder with the seeds of the whole source.
func (x *Index) find(places []int, t []byte, near int) []int {
	h, ok := hash(t)
	if !ok {
		return places
	}
	b := h >> x.shift
	seeds := x.seeds[x.starts[b]:x.starts[b+1]]
	if len(seeds) > maxCandidates {
		n, _ := slices.BinarySearch(seeds, uint32(max(0, near)/x.step))
		from := min(max(0, n-maxCandidates/2), len(seeds)-maxCandidates)
		seeds = seeds[from : from+maxCandidates]
	}
	for _, s := range seeds {
		places = append(places, int(s)*x.step)
	}
	return places
}

// hash mixes the first seedSize bytes of b. Runs of one 8-byte pattern, zeros
// above all, occur everywhere and are no seeds: ok is false.
func hash(b []byte) (h uint64, ok bool) {
	_ = b[seedSize-1]
	w0 := binary.LittleEndian.Uint64(b)
	w1 := binary.LittleEndian.Uint64(b[8:])
	w2 := binary.LittleEndian.Uint64(b[16:])
	if w0 == w1 && w1 == w2 {
		return 0, false
	}
	const m = 0x9e3779b97f4a7c15
	h = w0 * m
	h = (bits.RotateLeft64(h, 29) ^ w1) * m
	h = (bits.RotateLeft64(h, 29) ^ w2) * m
	return h ^ h>>31, true
}

// parallel splits 0..n among all cores.
func parallel(n int, f func(from, to int)) {
	workers := runtime.GOMAXPROCS(0)
	if n < 1<<12 {
		workers = 1
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { f(n/workers*w+min(w, n%workers), n/workers*(w+1)+min(w+1, n%workers)) })
	}
	wg.Wait()
}
