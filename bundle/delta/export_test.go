// SPDX-License-Identifier: Apache-2.0

package delta

import "bytes"

// A Crafter codes instructions one by one, also such as no encoder makes.
type Crafter struct {
	k       *codec
	context uint64
}

// Craft returns the instructions for n bytes that f codes.
func Craft(n int, src []byte, f func(c *Crafter)) []byte {
	c := &Crafter{k: newCodec()}
	c.k.start(make([]byte, n), make([]byte, n), origin{image: bytes.NewReader(src), size: int64(len(src))})
	c.k.coder.Encode(nil)
	f(c)
	return c.k.coder.Finish()
}

// Length codes that n literal bytes follow.
func (c *Crafter) Length(n uint64) *Crafter {
	c.k.lengths.code(&c.k.coder, n, 0)
	c.context = min(n, 20)
	return c
}

// Literal codes literal bytes and their number.
func (c *Crafter) Literal(b string) *Crafter {
	c.Length(uint64(len(b)))
	if b != "" {
		hint, err := c.k.source.hint(c.k.hint, int64(c.k.at)+c.k.align[0], len(b))
		if err != nil {
			panic(err)
		}
		end := c.k.at + copy(c.k.want[c.k.at:], b)
		c.k.literals.code(&c.k.coder, c.k.chunk, c.k.at, end, c.k.want, hint)
		c.k.at = end
	}
	return c
}

// Copy codes that n bytes are copied.
func (c *Crafter) Copy(n uint64) *Crafter {
	c.k.copies.code(&c.k.coder, n, c.context)
	return c
}

// Recent codes which of the last alignments a copy has.
func (c *Crafter) Recent(i uint64) *Crafter {
	c.k.recent.code(&c.k.coder, i, c.context)
	return c
}

// Shift codes the number that says how far an alignment moves.
func (c *Crafter) Shift(v uint64) *Crafter {
	c.k.shifts.code(&c.k.coder, v, 0)
	return c
}

// Blocks codes how many blocks of a copy of n bytes have no difference, and one more.
func (c *Crafter) Blocks(blocks uint64, n int) *Crafter {
	c.k.diffs.blocks.code(&c.k.coder, blocks, uint64(min((n+hotBytes-1)/hotBytes, 32)))
	return c
}

// CopyAt codes a copy of n bytes with an alignment not used before, without differences.
func (c *Crafter) CopyAt(n int, align int64) *Crafter {
	c.Copy(uint64(n)).Recent(alignments).Shift(zigzag(align-c.k.align[0])).Blocks(0, n)
	copy(c.k.align[1:], c.k.align[:])
	c.k.align[0] = align
	if from := int64(c.k.at) + align; from >= 0 && from+int64(n) <= c.k.source.size {
		if err := c.k.source.read(c.k.chunk[c.k.at:c.k.at+n], from); err != nil {
			panic(err)
		}
	}
	c.k.at += n
	return c
}

// Encode makes the instructions that turn the source into target by copying
// [from, to) of target from [from+shift, to+shift) of the source.
func Encode(target, src []byte, copies ...[3]int) []byte {
	var segments []segment
	for _, c := range copies {
		segments = append(segments, segment{c[0], c[1], c[2]})
	}
	patch, err := newCodec().encode(nil, make([]byte, len(target)), target, origin{image: bytes.NewReader(src), size: int64(len(src))}, segments)
	if err != nil {
		panic(err)
	}
	return patch
}
