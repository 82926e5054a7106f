// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"encoding/binary"
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

// seeds find places in a piece of memory that resemble a piece of a target.
type seeds struct {
	src []byte

	step   int
	shift  uint     // hash >> shift = bucket
	starts []uint32 // bucket b holds places[starts[b]:starts[b+1]]
	places []uint32 // positions divided by step, ascending in each bucket
}

// newSeeds takes 0.75 to 1 times the memory of src.
func newSeeds(src []byte) *seeds {
	x := &seeds{src: src, step: minStep}
	for len(src)/x.step > maxSeeds {
		x.step *= 2
	}
	x.build()
	return x
}

// build counts the seeds of each bucket, turns the counts into ranges and
// fills them; sorting makes the result independent of the goroutines' order.
func (x *seeds) build() {
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
	x.places = make([]uint32, sum)
	x.each(n, func(i int, b uint64) { x.places[atomic.AddUint32(&x.starts[b], ^uint32(0))] = uint32(i) })
	parallel(buckets, fewSeeds, func(from, to int) {
		for b := from; b < to; b++ {
			if s := x.places[x.starts[b]:x.starts[b+1]]; len(s) > 1 {
				slices.Sort(s)
			}
		}
	})
}

// each calls f with the number and bucket of every seed worth indexing.
func (x *seeds) each(n int, f func(i int, bucket uint64)) {
	parallel(n, fewSeeds, func(from, to int) {
		for i := from; i < to; i++ {
			if h, ok := hash(x.src[i*x.step:]); ok {
				f(i, h>>x.shift)
			}
		}
	})
}

func (x *seeds) seed() int { return seedSize }
func (x *seeds) gain() int { return seedGain }

// find implements finder with the seeds of the whole source.
func (x *seeds) find(places []int, t []byte, near int) []int {
	h, ok := hash(t)
	if !ok {
		return places
	}
	b := h >> x.shift
	seeds := x.places[x.starts[b]:x.starts[b+1]]
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

// fewSeeds are counted faster by one goroutine than by many.
const fewSeeds = 1 << 12

// parallel splits 0..n among all cores, or not if n is below few.
func parallel(n, few int, f func(from, to int)) {
	workers := runtime.GOMAXPROCS(0)
	if n < few {
		workers = 1
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { f(n/workers*w+min(w, n%workers), n/workers*(w+1)+min(w+1, n%workers)) })
	}
	wg.Wait()
}
