// SPDX-License-Identifier: Apache-2.0

package blocks

import (
	"iter"
	"slices"
)

// A Place is where a frame was found.
type Place struct {
	Source int
	Offset int64
}

// A Search looks for frames of one length in any number of sources.
type Search struct {
	blocks int // in a frame
	wanted []Hash
	// found has the place of each wanted frame: the source's number plus one
	// above, the number of its first block below; 0 is nowhere.
	found []uint64
}

const blockBits = 40

// NewSearch begins a search for frames, which are frame bytes long, a multiple
// of [Size], and have these hashes. Any number of them may be the same.
func NewSearch(frame int64, contents iter.Seq[Hash]) *Search {
	n := 0
	for range contents {
		n++ // there may be very many, so no memory is to be lost by growing
	}
	s := &Search{blocks: int(frame / Size), wanted: slices.AppendSeq(make([]Hash, 0, n), contents)}
	slices.Sort(s.wanted)
	s.wanted = slices.Compact(s.wanted)
	s.found = make([]uint64, len(s.wanted))
	return s
}

// In searches another source: the function it returns is to be given the hash of
// every block of the source, in order. Of several places the first one counts.
func (s *Search) In(source int) func(Hash) {
	last := make([]Hash, 0, 2*s.blocks) // the end of it is the window
	var block uint64
	return func(h Hash) {
		if len(last) == cap(last) {
			last = last[:copy(last, last[len(last)-s.blocks+1:])]
		}
		last = append(last, h)
		block++
		if block < uint64(s.blocks) {
			return
		}
		i, ok := slices.BinarySearch(s.wanted, Combine(last[len(last)-s.blocks:]))
		if ok && s.found[i] == 0 {
			s.found[i] = uint64(source+1)<<blockBits | block - uint64(s.blocks)
		}
	}
}

// Find tells where a frame was found.
func (s *Search) Find(content Hash) (Place, bool) {
	i, ok := slices.BinarySearch(s.wanted, content)
	if !ok || s.found[i] == 0 {
		return Place{}, false
	}
	return Place{int(s.found[i]>>blockBits) - 1, int64(s.found[i]&(1<<blockBits-1)) * Size}, true
}
