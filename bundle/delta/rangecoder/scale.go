// SPDX-License-Identifier: Apache-2.0

package rangecoder

import "math/bits"

// The logistic value of a probability p is ln(p/(1-p)), here in 256ths. It
// ends where a probability in 65536ths ends.
const reach = 2815

// A scale holds what takes long to calculate.
type scale struct {
	squash  [2*reach + 1]uint16 // logistic value + reach -> probability in 65536ths
	stretch [4096]int16         // probability in 4096ths -> logistic value
	rate    [16]uint32          // times a slot was used -> how fast it learns, in 65536ths
}

var logistic = newScale()

func newScale() *scale {
	s := new(scale)
	const step = 4311777323 // e^(1/256) in 2^-32nds
	e := uint64(1 << 32)    // e^(i/256) in the same unit
	for i := range reach + 1 {
		odds := e >> 16
		p := min(odds<<16/(odds+1<<16), 1<<16-1)
		s.squash[reach+i], s.squash[reach-i] = uint16(p), uint16(1<<16-p)
		hi, lo := bits.Mul64(e, step)
		e = hi<<32 | lo>>32
	}
	x := 0
	for p := range s.stretch {
		for x < 2*reach && int(s.squash[x]) < 16*p+8 {
			x++
		}
		s.stretch[p] = int16(x - reach)
	}
	// The mean of what was seen, as long as that is little; then what was seen
	// longer ago counts less and less.
	for n := range s.rate {
		s.rate[n] = uint32(1 << 17 / (2*n + 3))
	}
	s.rate[13], s.rate[14], s.rate[15] = 65536/18, 65536/22, 65536/27
	return s
}
