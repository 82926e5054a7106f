// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"encoding/binary"
	"math/bits"
)

const (
	minGap     = 12       // literals shorter than this are left alone
	localSeed  = 8        // bytes of a seed near a gap
	localGain  = 6        // see finder
	localReach = 16 << 10 // how far around a gap's alignments to look
	localTries = 8        // places compared for one seed
	maxLocal   = 1 << 20  // longest piece of source indexed for one gap
)

// A local finder knows every position of a small piece of the source. The
// index is too coarse for short matches; around a gap between two segments,
// though, even a short one is likely to be right and cheap to point at.
type local struct {
	src   []byte
	base  int
	shift uint
	heads []int32 // hash >> shift -> position + 1 - base of the last such seed
	links []int32 // position - base -> position + 1 - base of the one before
}

// index takes in the source around where the gap's two neighbours put it.
func (l *local) index(src []byte, gap segment, after int) {
	l.src = src
	lo := min(gap.from+gap.shift, gap.from+after)
	hi := max(gap.to+gap.shift, gap.to+after)
	if hi-lo > maxLocal { // neighbours from different places: the one before decides
		lo, hi = gap.from+gap.shift, gap.to+gap.shift
	}
	lo = min(max(0, lo-localReach), len(l.src))
	hi = min(hi+localReach, len(l.src))
	n := max(0, hi-lo-localSeed+1)
	width := max(bits.Len(uint(n)), 4)
	if cap(l.heads) < 1<<width {
		l.heads = make([]int32, 1<<width)
	}
	if cap(l.links) < n {
		l.links = make([]int32, n)
	}
	l.base, l.shift, l.heads, l.links = lo, uint(64-width), l.heads[:1<<width], l.links[:n]
	clear(l.heads)
	for i := range n {
		h := l.hash(l.src[lo+i:])
		l.links[i], l.heads[h] = l.heads[h], int32(i+1)
	}
}

func (l *local) hash(b []byte) uint64 {
	return binary.LittleEndian.Uint64(b) * 0x9e3779b97f4a7c15 >> l.shift
}

func (l *local) seed() int { return localSeed }
func (l *local) gain() int { return localGain }

// find implements finder.
func (l *local) find(places []int, t []byte, _ int) []int {
	for p := l.heads[l.hash(t)]; p > 0 && len(places) < localTries; p = l.links[p-1] {
		places = append(places, l.base+int(p)-1)
	}
	return places
}
