// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

const (
	switchGain    = 8  // bytes by which a new alignment must beat the present one
	maxCandidates = 16 // places compared for one seed
	cutDrop       = 24 // a copy is cut where its score falls this far below its best
	cutRise       = 16 // and goes on where the score has risen this far again
)

// A segment is a piece of the target that is copied from the source:
// target[from:to] resembles src[from+shift:to+shift].
type segment struct {
	from, to int
	shift    int
}

// A matcher finds the segments of one chunk.
type matcher struct {
	x      *Index
	target []byte
	out    []segment
}

// match returns the segments of target in ascending order, not overlapping.
// offset is where the target lies in its image, the first alignment tried.
func (x *Index) match(target []byte, offset int64) []segment {
	m := &matcher{x: x, target: target}
	cur := segment{shift: int(min(offset, int64(len(x.src))))}
	for i := 0; i+seedSize <= len(target); {
		// Most data goes on where the last match went on.
		if n := m.equal(i, cur.shift); n >= seedSize {
			i += n
			continue
		}
		next, ok := m.find(i, cur)
		if !ok {
			i++
			continue
		}
		i = next.to
		cur = m.join(cur, next)
	}
	cur.to = cur.from + m.forward(cur.from, len(target), cur.shift)
	m.emit(cur)
	return m.out
}

// equal counts the bytes from target[i] on that are the same in the source.
func (m *matcher) equal(i, shift int) int {
	if i+shift < 0 || i+shift >= len(m.x.src) {
		return 0
	}
	return common(m.target[i:], m.x.src[i+shift:])
}

// find looks for the longest match that begins with the seed at i and is
// better there than the present alignment.
func (m *matcher) find(i int, cur segment) (best segment, ok bool) {
	seeds := m.x.bucket(m.target[i:])
	if len(seeds) == 0 {
		return best, false
	}
	if len(seeds) > maxCandidates { // those nearest to where we are
		n, _ := slices.BinarySearch(seeds, uint32(max(0, i+cur.shift)/m.x.step))
		from := min(max(0, n-maxCandidates/2), len(seeds)-maxCandidates)
		seeds = seeds[from : from+maxCandidates]
	}
	gain := switchGain
	for _, s := range seeds {
		at := int(s) * m.x.step
		shift := at - i
		n := common(m.target[i:], m.x.src[at:])
		if n < seedSize {
			continue
		}
		c := segment{from: i - m.equalBefore(i, shift, cur.from), to: i + n, shift: shift}
		g := c.to - c.from - m.same(c.from, c.to, cur.shift)
		if g > gain || g == gain && ok && abs(shift-cur.shift) < abs(best.shift-cur.shift) {
			best, gain, ok = c, g, true
		}
	}
	return best, ok
}

// equalBefore counts the equal bytes that end before target[i], to floor.
func (m *matcher) equalBefore(i, shift, floor int) int {
	n := 0
	for i-n > floor && i-n+shift > 0 && m.target[i-n-1] == m.x.src[i-n-1+shift] {
		n++
	}
	return n
}

// same counts the bytes of target[from:to] that an alignment gets right.
func (m *matcher) same(from, to, shift int) int {
	from, to = max(from, -shift), min(to, len(m.x.src)-shift)
	n := 0
	for i := from; i < to; i++ {
		if m.target[i] == m.x.src[i+shift] {
			n++
		}
	}
	return n
}

// join ends the segment cur somewhere before the exact match next, which it
// extends backward, and returns what next has become.
func (m *matcher) join(cur, next segment) segment {
	cur.to = cur.from + m.forward(cur.from, next.from, cur.shift)
	from := next.from - m.backward(next.from, cur.from, next.shift)
	if from < cur.to { // both claim target[from:cur.to]: split it where most bytes are right
		score, best, split := 0, 0, from
		for i := from; i < cur.to; i++ {
			if m.target[i] == m.x.src[i+cur.shift] {
				score++
			}
			if m.target[i] == m.x.src[i+next.shift] {
				score--
			}
			if score > best {
				best, split = score, i+1
			}
		}
		cur.to, from = split, split
	}
	m.emit(cur)
	next.from = from
	return next
}

// forward returns how far target[from:to] is worth copying with an alignment:
// the length at which right bytes outnumber wrong ones the most.
func (m *matcher) forward(from, to, shift int) int {
	if from+shift < 0 {
		return 0
	}
	to = min(to, len(m.x.src)-shift)
	score, best, length := 0, 0, 0
	for i := from; i < to; {
		if n := common(m.target[i:to], m.x.src[i+shift:]); n > 0 {
			score += n
			i += n
			if score > best {
				best, length = score, i-from
			}
			continue
		}
		score--
		i++
	}
	return length
}

// backward is forward in the other direction, from target[to-1] to floor.
func (m *matcher) backward(to, floor, shift int) int {
	floor = max(floor, -shift)
	score, best, length := 0, 0, 0
	for i := to; i > floor; i-- {
		if m.target[i-1] != m.x.src[i-1+shift] {
			score--
		} else if score++; score > best {
			best, length = score, to-i+1
		}
	}
	return length
}

// emit adds the parts of s that are worth copying. Inside a segment there may
// be stretches where so little agrees that literals are shorter.
func (m *matcher) emit(s segment) {
	from := s.from // start of the part
	end := s.from  // where its score was best
	score, best := 0, 0
	copying := true
	for i := s.from; i < s.to; {
		n := common(m.target[i:s.to], m.x.src[i+s.shift:])
		switch {
		case n > 0:
			score += n
			i += n
		default:
			score--
			i++
		}
		switch {
		case copying && score > best:
			best, end = score, i
		case copying && score < best-cutDrop:
			m.add(segment{from, end, s.shift})
			copying, best, from = false, score, i
		case !copying && score < best: // best is the lowest score now
			best, from = score, i
		case !copying && score > best+cutRise:
			copying, best, end = true, score, i
		}
	}
	if copying {
		m.add(segment{from, end, s.shift})
	}
}

func (m *matcher) add(s segment) {
	if s.to > s.from {
		m.out = append(m.out, s)
	}
}

// common returns the length of the common prefix of a and b.
func common(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if d := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); d != 0 {
			return i + bits.TrailingZeros64(d)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

func abs(v int) int { return max(v, -v) }
