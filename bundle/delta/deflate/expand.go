// SPDX-License-Identifier: Apache-2.0

package deflate

import "encoding/binary"

// Bytes of the expanded form that begin a symbol: docs/delta.md, "Expanded blocks".
const (
	maxRun    = 128  // bytes below are one less than the number of literals that follow
	match     = 0x80 // a match of 3 and so many bytes more
	longMatch = 0xfe // the next byte says how many more than 129
	blockEnd  = 0xff

	shortLengths = longMatch - match
)

// An Expander expands blocks; it keeps its tables between them.
type Expander struct {
	r                 reader
	literals, distant decodeTable
}

// Expand appends to dst the expanded form of the block that begins at bit
// number at of b, and returns where it ends and whether it is the last one of
// its stream. It fails if dst would become longer than limit.
func (x *Expander) Expand(dst, b []byte, at, limit int) (out []byte, end int, last bool, err error) {
	if at < 0 || at > 8*len(b) {
		return dst, at, false, ErrBlock
	}
	x.r = reader{b: b, next: at / 8}
	if x.r.skip(uint(at % 8)); !x.r.ok() {
		return dst, at, false, ErrBlock
	}
	head := x.r.bits(3)
	out = append(dst, byte(head))
	switch head >> 1 {
	case stored:
		out = x.r.stored(out, limit)
	case fixed:
		if err = x.fixed(); err == nil {
			out = x.symbols(out, limit)
		}
	case dynamic:
		if out, err = x.dynamic(out); err == nil {
			out = x.symbols(out, limit)
		}
	default:
		err = ErrBlock
	}
	if err != nil || !x.r.ok() || len(out) > limit {
		return dst, at, false, ErrBlock
	}
	return out, x.r.position(), head&1 == 1, nil
}

func (r *reader) stored(out []byte, limit int) []byte {
	if r.bits(-uint(r.position())&7) != 0 {
		r.bad = true
		return out
	}
	n, inverse := r.bits(16), r.bits(16)
	at := r.position() / 8
	if n != inverse^0xffff || r.bad || at+int(n) > len(r.b) || len(out)+int(n) > limit {
		r.bad = true
		return out
	}
	out = binary.LittleEndian.AppendUint16(out, uint16(n))
	out = append(out, r.b[at:at+int(n)]...)
	*r = reader{b: r.b, next: at + int(n)}
	return out
}

func (x *Expander) fixed() error {
	literals, distances := fixedLengths()
	if err := x.literals.build(literals); err != nil {
		return err
	}
	return x.distant.build(distances)
}

// dynamic reads how the codes of a block are made, and builds the tables.
func (x *Expander) dynamic(out []byte) ([]byte, error) {
	r := &x.r
	hlit, hdist, hclen := r.bits(5), r.bits(5), r.bits(4)
	literals, distances := int(hlit)+firstLength, int(hdist)+1
	if literals > maxLiterals || distances > maxDistances {
		return out, ErrBlock
	}
	out = append(out, byte(hlit), byte(hdist), byte(hclen))
	var lengths [maxLiterals + maxDistances]byte
	for _, s := range lengthOrder[:hclen+4] {
		lengths[s] = byte(r.bits(3))
		out = append(out, lengths[s])
	}
	if err := x.literals.build(lengths[:19]); err != nil {
		return out, err
	}
	var n lengthList
	for len(n.lengths) < literals+distances {
		s := r.symbol(&x.literals)
		token := byte(s)
		switch s {
		case 16:
			token = 16 + byte(r.bits(2))
		case 17:
			token = 20 + byte(r.bits(3))
		case 18:
			token = 28 + byte(r.bits(7))
		}
		if !r.ok() || !n.add(token, literals+distances) {
			return out, ErrBlock
		}
		out = append(out, token)
	}
	if n.lengths[endOfBlock] == 0 {
		return out, ErrBlock
	}
	if err := x.literals.build(n.lengths[:literals]); err != nil {
		return out, err
	}
	return out, x.distant.build(n.lengths[literals:])
}

// A lengthList collects the code lengths of a block.
type lengthList struct {
	lengths []byte
}

// add takes one token: a length, or 16 to 19: the last one again 3 to 6 times,
// or 20 and more: 3 to 138 zeros.
func (l *lengthList) add(token byte, limit int) bool {
	n, value := 1, token
	switch {
	case token <= maxBits:
	case token < 20:
		if len(l.lengths) == 0 {
			return false
		}
		n, value = int(token)-16+3, l.lengths[len(l.lengths)-1]
	case token < 28:
		n, value = int(token)-20+3, 0
	case token < 156:
		n, value = int(token)-28+11, 0
	default:
		return false
	}
	if len(l.lengths)+n > limit {
		return false
	}
	for range n {
		l.lengths = append(l.lengths, value)
	}
	return true
}

// symbols expands what follows the tables, up to the end of the block.
func (x *Expander) symbols(out []byte, limit int) []byte {
	r := &x.r
	run := -1 // where the length of the literals at hand is
	for len(out) <= limit {
		s := r.symbol(&x.literals)
		if s < endOfBlock {
			if run < 0 || out[run] == maxRun-1 {
				run = len(out)
				out = append(out, 0, byte(s))
			} else {
				out[run]++
				out = append(out, byte(s))
			}
			if r.bad {
				return out
			}
			continue
		}
		run = -1
		if s == endOfBlock {
			return append(out, blockEnd)
		}
		if s >= maxLiterals {
			r.bad = true
			return out
		}
		base, n := lengthBase(s - firstLength)
		length := base + int(r.bits(n))
		if length == maxMatch-minMatch && n > 0 {
			r.bad = true // the longest match has a symbol of its own
			return out
		}
		d := r.symbol(&x.distant)
		if d >= maxDistances {
			r.bad = true
			return out
		}
		base, n = distanceBase(d)
		distance := base + int(r.bits(n))
		if r.bad {
			return out
		}
		if length < shortLengths {
			out = append(out, match+byte(length))
		} else {
			out = append(out, longMatch, byte(length-shortLengths))
		}
		out = binary.LittleEndian.AppendUint16(out, uint16(distance))
	}
	return out
}

// A reader takes bits off b, the lowest of each byte first.
type reader struct {
	b    []byte
	next int    // byte of b that is read next
	acc  uint64 // bits that were read and not taken
	n    uint   // of them
	bad  bool   // more was asked for than there is
}

func (r *reader) ok() bool      { return !r.bad }
func (r *reader) position() int { return 8*r.next - int(r.n) }

// fill makes at least 56 bits available if there are so many.
func (r *reader) fill() {
	if r.next+8 <= len(r.b) {
		r.acc |= binary.LittleEndian.Uint64(r.b[r.next:]) << r.n
		r.next += int(63-r.n) >> 3
		r.n |= 56
		return
	}
	for r.n <= 56 && r.next < len(r.b) {
		r.acc |= uint64(r.b[r.next]) << r.n
		r.next++
		r.n += 8
	}
}

func (r *reader) skip(n uint) {
	if r.n < n {
		if r.fill(); r.n < n {
			r.bad = true
			return
		}
	}
	r.acc >>= n
	r.n -= n
}

// bits takes at most 16 bits.
func (r *reader) bits(n uint) uint {
	if r.n < n {
		r.fill()
	}
	v := uint(r.acc) & (1<<n - 1)
	r.skip(n)
	return v
}

// symbol takes one code. An impossible one makes r bad.
func (r *reader) symbol(t *decodeTable) int {
	if r.n < maxBits {
		r.fill()
	}
	if e := t.fast[r.acc&(1<<fastBits-1)]; e != 0 {
		r.skip(uint(e & 15))
		return int(e >> 4)
	}
	s, n, ok := t.slow(r.acc)
	if !ok {
		r.bad = true
		return 0
	}
	r.skip(n)
	return s
}
