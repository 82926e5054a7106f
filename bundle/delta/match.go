// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"encoding/binary"
	"math/bits"
)

const (
	cutDrop = 24 // a copy is cut where its score falls this far below its best
	cutRise = 16 // and goes on where the score has risen this far again
)

// A segment is a piece of the target that is copied from the source:
// target[from:to] resembles src[from+shift:to+shift].
type segment struct {
	from, to int
	shift    int
}

// A finder knows where in the source a seed may be found.
type finder interface {
	// seed is the number of bytes that must match exactly.
	seed() int
	// gain is by how many right bytes a new alignment must beat the present one.
	gain() int
	// find appends the places in the source that may equal the start of t, those
	// nearest to near if there are too many.
	find(places []int, t []byte, near int) []int
}

// A matcher finds the segments of one chunk. It is used again for the next.
type matcher struct {
	src    []byte
	target []byte
	out    []segment
	coarse []segment
	places []int
	local  local
}

// match returns the segments of target in ascending order, not overlapping.
// offset is where the target lies in its image, the first alignment tried.
func (m *matcher) match(x *seeds, target []byte, offset int64) []segment {
	m.src, m.target, m.out = x.src, target, m.out[:0]
	m.scan(x, segment{shift: int(min(offset, int64(len(x.src))))})
	if len(m.out) == 0 {
		return nil
	}
	m.coarse, m.out = append(m.coarse[:0], m.out...), m.out[:0]
	before := segment{shift: m.coarse[0].shift}
	for _, s := range m.coarse {
		m.fill(before, s)
		m.out = append(m.out, s)
		before = s
	}
	m.fill(before, segment{from: len(target), shift: before.shift})
	return m.out
}

// fill looks for short matches in the gap between two segments.
func (m *matcher) fill(before, after segment) {
	gap := segment{from: before.to, to: after.from, shift: before.shift}
	if gap.to-gap.from < minGap {
		return
	}
	whole := m.target
	m.target = whole[:gap.to]
	m.local.index(m.src, gap, after.shift)
	m.scan(&m.local, gap)
	m.target = whole
}

// scan adds the segments of the target from cur.from on.
func (m *matcher) scan(f finder, cur segment) {
	seed := f.seed()
	for i := cur.from; i+seed <= len(m.target); {
		// Most data goes on where the last match went on.
		if n := m.equal(i, cur.shift); n >= seed {
			i += n
			continue
		}
		next, ok := m.find(f, i, cur)
		if !ok {
			i++
			continue
		}
		i = next.to
		cur = m.join(cur, next)
	}
	cur.to = cur.from + m.forward(cur.from, len(m.target), cur.shift)
	m.emit(cur)
}

// equal counts the bytes from target[i] on that are the same in the source.
func (m *matcher) equal(i, shift int) int {
	if i+shift < 0 || i+shift >= len(m.src) {
		return 0
	}
	return common(m.target[i:], m.src[i+shift:])
}

// find looks for the longest match that begins with the seed at i and is
// better there than the present alignment.
func (m *matcher) find(f finder, i int, cur segment) (best segment, ok bool) {
	m.places = f.find(m.places[:0], m.target[i:], i+cur.shift)
	gain := f.gain()
	for _, at := range m.places {
		shift := at - i
		n := common(m.target[i:], m.src[at:])
		if n < f.seed() {
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
	for i-n > floor && i-n+shift > 0 && m.target[i-n-1] == m.src[i-n-1+shift] {
		n++
	}
	return n
}

// same counts the bytes of target[from:to] that an alignment gets right.
func (m *matcher) same(from, to, shift int) int {
	from, to = max(from, -shift), min(to, len(m.src)-shift)
	n := 0
	for i := from; i < to; i++ {
		if m.target[i] == m.src[i+shift] {
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
			if m.target[i] == m.src[i+cur.shift] {
				score++
			}
			if m.target[i] == m.src[i+next.shift] {
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
	to = min(to, len(m.src)-shift)
	score, best, length := 0, 0, 0
	for i := from; i < to; {
		if n := common(m.target[i:to], m.src[i+shift:]); n > 0 {
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
		if m.target[i-1] != m.src[i-1+shift] {
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
		n := common(m.target[i:s.to], m.src[i+s.shift:])
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
