// SPDX-License-Identifier: Apache-2.0

package blocks

import (
	"iter"
	"math"
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
	// found has the place of each wanted frame: one more than the number of its
	// first block, of all that were searched; 0 is nowhere.
	found    []uint32
	searched uint64 // blocks
	begins   []begin
}

// A begin tells which of all blocks is the first one of a source.
type begin struct {
	source int
	block  uint64
}

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
	s.found = make([]uint32, len(s.wanted))
	return s
}

// In searches another source: the function it returns is to be given the hash of
// every block of the source, in order, and only until the next source is begun.
// Of several places the first one counts; behind 16 TiB nothing is found.
func (s *Search) In(source int) func(Hash) {
	last := make([]Hash, 0, 2*s.blocks) // the end of it is the window
	s.begins = append(s.begins, begin{source, s.searched})
	begun := s.searched
	return func(h Hash) {
		if len(last) == cap(last) {
			last = last[:copy(last, last[len(last)-s.blocks+1:])]
		}
		last = append(last, h)
		s.searched++
		if s.searched-begun < uint64(s.blocks) || s.searched > math.MaxUint32 {
			return
		}
		i, ok := slices.BinarySearch(s.wanted, Combine(last[len(last)-s.blocks:]))
		if ok && s.found[i] == 0 {
			s.found[i] = uint32(s.searched - uint64(s.blocks) + 1)
		}
	}
}

// Find tells where a frame was found.
func (s *Search) Find(content Hash) (Place, bool) {
	i, ok := slices.BinarySearch(s.wanted, content)
	if !ok || s.found[i] == 0 {
		return Place{}, false
	}
	block := uint64(s.found[i] - 1)
	k := len(s.begins) - 1
	for s.begins[k].block > block {
		k--
	}
	return Place{s.begins[k].source, int64(block-s.begins[k].block) * Size}, true
}
