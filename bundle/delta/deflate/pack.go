// SPDX-License-Identifier: Apache-2.0

package deflate

import "encoding/binary"

// A Packer puts expanded blocks back together.
type Packer struct {
	w                 writer
	in                []byte
	literals, distant encodeTable
}

// Start makes dst, and no byte beyond it, the place to write to. The first n
// bits (at most 7) are the lowest of first.
func (p *Packer) Start(dst []byte, first byte, n uint) {
	p.w = writer{dst: dst, acc: uint64(first) & (1<<n - 1), n: n}
}

// Pack appends the block at the front of expanded, and returns what follows it.
func (p *Packer) Pack(expanded []byte) (rest []byte, err error) {
	p.in = expanded
	head, ok := p.take(1)
	if !ok || head[0] > 2*dynamic+1 {
		return nil, ErrBlock
	}
	p.w.bits(uint(head[0]), 3)
	switch head[0] >> 1 {
	case stored:
		ok = p.stored()
	case fixed:
		literals, distances := fixedLengths()
		ok = p.tables(literals, distances) && p.symbols()
	case dynamic:
		ok = p.dynamic() && p.symbols()
	}
	if !ok || p.w.full {
		return nil, ErrBlock
	}
	return p.in, nil
}

// Missing is how many bits the last byte lacks, 0 to 7.
func (p *Packer) Missing() uint {
	return -p.w.n & 7
}

// End fills the last byte with the lowest bits of last and returns the number
// of bytes written.
func (p *Packer) End(last byte) (n int, err error) {
	p.w.bits(uint(last)&(1<<p.Missing()-1), p.Missing())
	p.w.flush()
	if p.w.full {
		return 0, ErrBlock
	}
	return p.w.at, nil
}

// take removes n bytes from the front of the input.
func (p *Packer) take(n int) (b []byte, ok bool) {
	if n > len(p.in) {
		return nil, false
	}
	b, p.in = p.in[:n], p.in[n:]
	return b, true
}

func (p *Packer) stored() bool {
	b, ok := p.take(2)
	if !ok {
		return false
	}
	n := binary.LittleEndian.Uint16(b)
	data, ok := p.take(int(n))
	if !ok {
		return false
	}
	p.w.bits(0, p.Missing())
	p.w.bits(uint(n), 16)
	p.w.bits(uint(^n), 16)
	p.w.bytes(data)
	return true
}

func (p *Packer) tables(literals, distances []byte) bool {
	return p.literals.build(literals) == nil && p.distant.build(distances) == nil
}

func (p *Packer) dynamic() bool {
	head, ok := p.take(3)
	if !ok || head[0] > maxLiterals-firstLength || head[1] >= maxDistances || head[2] > 15 {
		return false
	}
	literals, distances := int(head[0])+firstLength, int(head[1])+1
	p.w.bits(uint(head[0]), 5)
	p.w.bits(uint(head[1]), 5)
	p.w.bits(uint(head[2]), 4)
	order, ok := p.take(int(head[2]) + 4)
	if !ok {
		return false
	}
	var lengths [19]byte
	for i, n := range order {
		if n > 7 {
			return false
		}
		lengths[lengthOrder[i]] = n
		p.w.bits(uint(n), 3)
	}
	if p.literals.build(lengths[:]) != nil {
		return false
	}
	var n lengthList
	for len(n.lengths) < literals+distances {
		token, ok := p.take(1)
		if !ok || !n.add(token[0], literals+distances) {
			return false
		}
		switch t := uint(token[0]); {
		case t < 16:
			ok = p.symbol(&p.literals, int(t))
		case t < 20:
			ok = p.symbol(&p.literals, 16)
			p.w.bits(t-16, 2)
		case t < 28:
			ok = p.symbol(&p.literals, 17)
			p.w.bits(t-20, 3)
		default:
			ok = p.symbol(&p.literals, 18)
			p.w.bits(t-28, 7)
		}
		if !ok {
			return false
		}
	}
	return p.tables(n.lengths[:literals], n.lengths[literals:])
}

func (p *Packer) symbols() bool {
	for !p.w.full {
		c, ok := p.take(1)
		if !ok {
			return false
		}
		switch c := c[0]; {
		case c < maxRun:
			run, ok := p.take(int(c) + 1)
			if !ok {
				return false
			}
			for _, b := range run {
				if !p.symbol(&p.literals, int(b)) {
					return false
				}
			}
		case c == blockEnd:
			return p.symbol(&p.literals, endOfBlock)
		default:
			length := int(c - match)
			if c == longMatch {
				more, ok := p.take(1)
				if !ok || int(more[0]) > maxMatch-minMatch-shortLengths {
					return false
				}
				length += int(more[0])
			}
			b, ok := p.take(2)
			if !ok || !p.match(length, int(binary.LittleEndian.Uint16(b))) {
				return false
			}
		}
	}
	return false
}

func (p *Packer) match(length, distance int) bool {
	if distance > 0x7fff {
		return false
	}
	s, extra, n := lengthSymbol(length)
	if !p.symbol(&p.literals, firstLength+s) {
		return false
	}
	p.w.bits(extra, n)
	s, extra, n = distanceSymbol(distance)
	if !p.symbol(&p.distant, s) {
		return false
	}
	p.w.bits(extra, n)
	return true
}

func (p *Packer) symbol(t *encodeTable, s int) bool {
	if t.len[s] == 0 {
		return false
	}
	p.w.bits(uint(t.code[s]), uint(t.len[s]))
	return true
}

// A writer puts bits into dst, the lowest of each byte first.
type writer struct {
	dst  []byte
	at   int // byte of dst that is written next
	acc  uint64
	n    uint // bits in acc
	full bool // dst is too short
}

// bits writes at most 16 bits.
func (w *writer) bits(v, n uint) {
	w.acc |= uint64(v) << w.n
	if w.n += n; w.n >= 48 {
		w.flush()
	}
}

// flush writes all whole bytes.
func (w *writer) flush() {
	for ; w.n >= 8; w.n -= 8 {
		if w.at == len(w.dst) {
			w.full = true
			return
		}
		w.dst[w.at] = byte(w.acc)
		w.at++
		w.acc >>= 8
	}
}

// bytes writes b; the writer stands at the beginning of a byte.
func (w *writer) bytes(b []byte) {
	if w.flush(); w.full || len(b) > len(w.dst)-w.at {
		w.full = true
		return
	}
	w.at += copy(w.dst[w.at:], b)
}
