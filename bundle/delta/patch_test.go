// SPDX-License-Identifier: Apache-2.0

package delta_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/updaterd/updaterd/bundle/delta"
)

// program returns an image of functions that call each other by relative
// address, as a linker would lay them out. Functions in grown are longer by
// their value, so that whatever follows them moves and calls change.
func program(functions int, grown map[int]int) []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	type call struct{ at, callee int }
	var code []byte
	var calls []call
	var starts []int
	for f := range functions {
		starts = append(starts, len(code))
		for range 2 + rnd.IntN(12) {
			code = append(code, noise(rnd.Uint64(), 20+rnd.IntN(120))...)
			calls = append(calls, call{len(code), max(0, min(functions-1, f+rnd.IntN(200)-100))})
			code = append(code, 0, 0, 0, 0)
		}
		code = append(code, noise(uint64(f)<<8|1, grown[f])...)
	}
	for _, c := range calls {
		binary.LittleEndian.PutUint32(code[c.at:], uint32(starts[c.callee]-c.at-4))
	}
	return code
}

func TestRecompiledCodeIsSmall(t *testing.T) {
	src := program(4000, nil)
	target := program(4000, map[int]int{100: 16, 1200: 48, 2500: 7, 3000: 300})
	literal := size(roundTrip(t, newIndex(t, nil), nil, target, chunkSize))
	patch := size(roundTrip(t, newIndex(t, src), src, target, chunkSize))
	t.Logf("image %d bytes, literal %d, patch %d (%.2f %%)", len(target), literal, patch, 100*float64(patch)/float64(literal))
	if patch*50 > literal {
		t.Errorf("patch of recompiled code has %d bytes; want at most 2 %% of %d", patch, literal)
	}
}

func TestPatchSizes(t *testing.T) {
	src := noise(10, 4*chunkSize)
	swapped := append(append(bytes.Clone(src[2*chunkSize+5000:]), src[777:2*chunkSize]...), src[:777]...)
	flipped := bytes.Clone(src)
	for i := 500; i < len(flipped); i += 10_000 {
		flipped[i] ^= 4
	}
	tests := map[string]struct {
		target []byte
		limit  int // bytes per chunk
	}{
		"same":                 {src, 40},
		"shifted by one":       {append([]byte{1}, src...)[:len(src)], 60},
		"large files swapped":  {swapped, 60},
		"a bit in each 10,000": {flipped, 400},
		"random":               {noise(11, 2*chunkSize), chunkSize + 40},
	}
	x := newIndex(t, src)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for i, p := range roundTrip(t, x, src, tt.target, chunkSize) {
				if len(p) > tt.limit {
					t.Errorf("patch %d has %d bytes; want at most %d", i, len(p), tt.limit)
				}
			}
		})
	}
}

// Patches do not depend on the order of the calls, on how many run at once,
// or on which index of the same source makes them.
func TestDeterminism(t *testing.T) {
	src := program(3000, nil)
	target := append(noise(12, 5000), program(3000, map[int]int{7: 40, 1500: 9})...)
	const chunk = 128 << 10
	want := roundTrip(t, newIndex(t, src), src, target, chunk)
	x := newIndex(t, src)
	var wg sync.WaitGroup
	for n := range 4 * len(want) {
		wg.Go(func() {
			i := len(want) - 1 - n%len(want)
			got, err := x.Patch(target[i*chunk:min(len(target), (i+1)*chunk)], int64(i*chunk))
			if err != nil || !bytes.Equal(got, want[i]) {
				t.Errorf("patch %d differs from the first time (error %v)", i, err)
			}
		})
	}
	wg.Wait()
}

func TestPatchArguments(t *testing.T) {
	x := newIndex(t, noise(13, 1000))
	if _, err := x.Patch(make([]byte, delta.MaxTarget+1), 0); err == nil {
		t.Error("Patch of a chunk longer than MaxTarget: no error")
	}
	if _, err := x.Patch(nil, -1); err == nil {
		t.Error("Patch at a negative offset: no error")
	}
	if _, err := x.Patch(noise(13, 1000), 1<<62); err != nil {
		t.Errorf("Patch at an offset far beyond the source = %v", err)
	}
	for _, size := range []int64{-1, 1001, 1 << 60} {
		if _, err := delta.NewIndex(bytes.NewReader(make([]byte, 1000)), size, nil); err == nil {
			t.Errorf("NewIndex of 1000 bytes as %d: no error", size)
		}
	}
}
