// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"slices"
	"sort"
)

// An expanded is a chunk that is to be made in expanded form.
type expanded struct {
	head     expansion
	chunk    []byte
	pool     []byte
	segments []segment // of chunk, in the image and the pool behind it
}

// A run is whole deflate blocks of a chunk, and how the pool makes them.
type run struct {
	from, to int // bytes of the chunk
	expanded []byte
	segments []segment // of expanded, in the index's pool
}

// expand finds the deflate blocks of a chunk that cost less when they are
// expanded and compared with expanded blocks of the source; nil if there are
// none. plain is how the chunk would be copied without that.
func (w *worker) expand(x *Index, chunk []byte, offset int64, plain []segment) *expanded {
	limit := maxExpanded(len(chunk))
	var runs []run
	used := make(map[int]bool) // blocks of the pool
	length, pooled := len(chunk), 0
	first := sort.Search(len(x.runs), func(i int) bool { return int64(x.runs[i].endByte()) > offset })
	for _, s := range x.runs[first:] {
		if int64(s.firstByte()) >= offset+int64(len(chunk)) {
			break
		}
		r, ok := w.run(chunk, s, offset, limit)
		if !ok {
			continue
		}
		cost := costs(chunk, x.image.src, plain, r.from, r.to)
		if cost < minStream {
			continue
		}
		r.segments = slices.Clone(w.matcher.match(x.pool.seeds, r.expanded, 0))
		if costs(r.expanded, x.pool.src, r.segments, 0, len(r.expanded))+entryCost > cost {
			continue
		}
		more, grown := x.pool.missing(used, r.segments)
		if length += len(r.expanded) - (r.to - r.from); length > limit || pooled+grown > limit {
			length -= len(r.expanded) - (r.to - r.from)
			continue
		}
		pooled += grown
		for _, b := range more {
			used[b] = true
		}
		runs = append(runs, r)
	}
	if len(runs) == 0 {
		return nil
	}
	return x.compose(chunk, plain, runs, used)
}

// run expands the blocks of a stream that lie in the chunk as a whole.
func (w *worker) run(chunk []byte, s stream, offset int64, limit int) (run, bool) {
	from := sort.Search(len(s.bounds), func(i int) bool { return int64(s.bounds[i]/8) >= offset })
	to := sort.Search(len(s.bounds), func(i int) bool { return int64((s.bounds[i]+7)/8) > offset+int64(len(chunk)) }) - 1
	if from >= to {
		return run{}, false
	}
	start, end := s.bounds[from]-8*int(offset), s.bounds[to]-8*int(offset)
	b, err := w.runs.expandRun(chunk, start, end, limit)
	return run{from: start / 8, to: (end + 7) / 8, expanded: b}, err == nil
}

// Estimates of what is left to encode of a piece of target: bytes that differ
// compress a little, and a copy has to be told.
const (
	segmentCost = 5
	entryCost   = 24 // of a run and its blocks in the head
)

// costs estimates the bytes it takes to make target[from:to] by the segments.
func costs(target, src []byte, segments []segment, from, to int) int {
	cost, at := 0, from
	for _, s := range segments {
		if s.to <= from {
			continue
		}
		if s.from >= to {
			break
		}
		start, end := max(s.from, from), min(s.to, to)
		cost += start - at + segmentCost
		for i := start; i < end; i++ {
			if target[i] != src[i+s.shift] {
				cost++
			}
		}
		at = end
	}
	return cost + to - at
}

// missing lists the blocks that segments touch and that are not used yet, and
// the length of their expanded form.
func (p *pool) missing(used map[int]bool, segments []segment) (list []int, length int) {
	seen := make(map[int]bool)
	for _, s := range segments {
		for i := p.block(s.from + s.shift); i < len(p.blocks) && p.blocks[i].at < s.to+s.shift; i++ {
			if !used[i] && !seen[i] {
				seen[i] = true
				list = append(list, i)
				length += p.end(i) - p.blocks[i].at
			}
		}
	}
	return list, length
}

// block is the number of the block that position at of the pool belongs to.
func (p *pool) block(at int) int {
	return sort.Search(len(p.blocks), func(i int) bool { return p.blocks[i].at > at }) - 1
}

func (p *pool) end(i int) int {
	if i+1 < len(p.blocks) {
		return p.blocks[i+1].at
	}
	return len(p.src)
}

// compose puts the expanded chunk together, and a pool of just the blocks in use.
func (x *Index) compose(chunk []byte, plain []segment, runs []run, used map[int]bool) *expanded {
	e := &expanded{head: expansion{base: int64(len(x.image.src))}}
	moved := make(map[int]int, len(used)) // block -> its place in the new pool, less that in the old
	for i, b := range x.pool.blocks {
		if !used[i] {
			continue
		}
		moved[i] = len(e.pool) - b.at
		e.pool = append(e.pool, x.pool.src[b.at:x.pool.end(i)]...)
		if n := len(e.head.sources); n > 0 && e.head.sources[n-1].to == int64(b.bit) {
			e.head.sources[n-1].to = int64(b.end)
		} else {
			e.head.sources = append(e.head.sources, bitRange{int64(b.bit), int64(b.end)})
		}
	}
	at := 0
	for _, r := range runs {
		e.copyPlain(chunk, plain, at, r.from)
		start := len(e.chunk)
		e.chunk = append(e.chunk, r.expanded...)
		for _, s := range r.segments {
			shift := s.shift + moved[x.pool.block(s.from+s.shift)] + len(x.image.src) - start
			e.segments = append(e.segments, segment{s.from + start, s.to + start, shift})
		}
		e.head.runs = append(e.head.runs, runLength{r.from - at, len(r.expanded)})
		at = r.to
	}
	e.copyPlain(chunk, plain, at, len(chunk))
	e.head.length = len(e.chunk)
	return e
}

// copyPlain appends chunk[from:to] and what of its segments lies there.
func (e *expanded) copyPlain(chunk []byte, plain []segment, from, to int) {
	moved := len(e.chunk) - from
	e.chunk = append(e.chunk, chunk[from:to]...)
	for _, s := range plain {
		if s.from, s.to = max(s.from, from), min(s.to, to); s.from < s.to {
			e.segments = append(e.segments, segment{s.from + moved, s.to + moved, s.shift - moved})
		}
	}
}
