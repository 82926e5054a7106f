// SPDX-License-Identifier: Apache-2.0

// Package rangecoder turns decisions into bytes, each at the cost that a
// probability says, and learns the probabilities on the way.
//
// A Coder does both directions by the same calls: what it is given is encoded,
// or is ignored and what was encoded comes back. So a model, which must do
// the same in both directions, is written once. All of it is arithmetic with
// integers: every machine gets the same bytes. docs/delta.md, "The range code", says it exactly.
package rangecoder

import "errors"

// ErrMalformed is returned for a code that ends too soon, goes on too long, or
// that no encoder makes.
var ErrMalformed = errors.New("malformed range code")

const (
	minWidth  = 1 << 24 // below, a byte is shifted out
	codeBytes = 4       // of the state, and so of the end of a code
)

// A Coder encodes to or decodes from a piece of memory. Its state is an
// interval of numbers: of a byte string's continuations, those that stand for the decisions so far.
type Coder struct {
	buf      []byte
	at       int    // decoding: bytes taken from buf, and those behind its end
	low      uint64 // encoding: start of the interval, behind the bytes in buf
	code     uint32 // decoding: the number in the input, less the start of the interval
	width    uint32 // of the interval, at least minWidth
	decoding bool
	damaged  bool
}

// Encode starts a code that is appended to buf.
func (c *Coder) Encode(buf []byte) { *c = Coder{buf: buf, width: 1<<32 - 1} }

// Decode starts to decode all of code.
func (c *Coder) Decode(code []byte) {
	*c = Coder{buf: code, width: 1<<32 - 1, decoding: true}
	for range codeBytes {
		c.code = c.code<<8 | c.next()
	}
	c.damaged = c.code >= c.width
}

// Decoding tells the direction.
func (c *Coder) Decoding() bool { return c.decoding }

// next is the next byte of the code, whose end is followed by zeros.
func (c *Coder) next() uint32 {
	b := uint32(0)
	if c.at < len(c.buf) {
		b = uint32(c.buf[c.at])
	}
	c.at++
	return b
}

// Bit codes a bit of which p/65536, with p from 1 to 65535, is the
// probability that it is 1.
func (c *Coder) Bit(bit, p uint32) uint32 {
	bound := uint32(uint64(c.width) * uint64(p) >> 16)
	if c.decoding {
		bit = 0
		if c.code < bound {
			bit = 1
		}
	}
	if bit != 0 {
		c.width = bound
	} else {
		c.width -= bound
		c.advance(bound)
	}
	if c.width < minWidth {
		c.shift()
	}
	return bit
}

// Byte codes a byte of which nothing is known, in its full eight bits.
func (c *Coder) Byte(b byte) byte {
	part := c.width >> 8
	if c.decoding {
		n := c.code / part
		if n > 255 { // the interval's rest, which an encoder leaves alone
			c.damaged, c.code, n = true, 0, 0
		}
		b = byte(n)
	}
	c.width = part
	c.advance(uint32(b) * part)
	c.shift()
	return b
}

// advance moves the start of the interval.
func (c *Coder) advance(n uint32) {
	if c.decoding {
		c.code -= n
		return
	}
	if c.low += uint64(n); c.low>>32 != 0 {
		c.low &= 1<<32 - 1
		// What is encoded is less than 1, so there is a byte that takes the carry.
		for i := len(c.buf) - 1; ; i-- {
			if c.buf[i]++; c.buf[i] != 0 {
				break
			}
		}
	}
}

// shift makes the interval wide enough again.
func (c *Coder) shift() {
	for c.width < minWidth {
		c.width <<= 8
		if c.decoding {
			c.code = c.code<<8 | c.next()
			continue
		}
		c.buf = append(c.buf, byte(c.low>>24))
		c.low = c.low << 8 & (1<<32 - 1)
	}
}

// last is the number of the interval that a code ends with: the one with the most zeros at its end.
func last(low, width uint64) uint64 {
	for zeros := uint(24); ; zeros -= 8 {
		if n := (low + 1<<zeros - 1) >> zeros << zeros; n < low+width {
			return n
		}
	}
}

// Finish ends an encoding and returns the buffer. Zeros at the end of the state
// are left out.
func (c *Coder) Finish() []byte {
	start := len(c.buf)
	c.advance(uint32(last(c.low, uint64(c.width)) - c.low))
	for range codeBytes {
		c.buf = append(c.buf, byte(c.low>>24))
		c.low = c.low << 8 & (1<<32 - 1)
	}
	for len(c.buf) > start && c.buf[len(c.buf)-1] == 0 {
		c.buf = c.buf[:len(c.buf)-1]
	}
	return c.buf
}

// Err tells whether what was decoded so far is no code, or is beyond its end.
func (c *Coder) Err() error {
	if c.damaged || c.at > len(c.buf)+codeBytes {
		return ErrMalformed
	}
	return nil
}

// End tells whether all was decoded, and the code ends as Finish leaves it: there
// is one code for the same decisions.
func (c *Coder) End() error {
	if err := c.Err(); err != nil {
		return err
	}
	state := uint32(0)
	for i := c.at - codeBytes; i < c.at; i++ {
		state <<= 8
		if i < len(c.buf) {
			state |= uint32(c.buf[i])
		}
	}
	low := state - c.code // without what was carried beyond it
	if uint32(last(uint64(low), uint64(c.width))) != state || c.at < len(c.buf) || len(c.buf) > c.at-codeBytes && c.buf[len(c.buf)-1] == 0 {
		return ErrMalformed
	}
	return nil
}
