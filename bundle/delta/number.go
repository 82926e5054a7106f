// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"math/bits"

	"github.com/updaterd/updaterd/bundle/delta/rangecoder"
)

// Of a number's bits below the first, so many are learnt.
const learntBits = 3

// numbers codes the numbers of one kind: how many bits they have, then the
// bits below the first.
type numbers struct {
	model *rangecoder.Model
	last  uint64 // how many bits the numbers before had, 8 bits each
}

func newNumbers() numbers { return numbers{model: rangecoder.NewModel(3, 0, 12, 9, 16)} }

func (n *numbers) reset() {
	n.model.Reset()
	n.last = 0
}

// code codes v in a context.
func (n *numbers) code(c *rangecoder.Coder, v uint64, context uint64) uint64 {
	size := int(n.model.Byte(c, byte(bits.Len64(v)), &rangecoder.Contexts{
		context,
		context<<8 | n.last&0xff,
		n.last & 0xffff,
	}, nil, 0))
	before := n.last
	n.last = n.last<<8 | uint64(size)
	if size = min(size, 64); size < 2 {
		return uint64(size)
	}
	got := uint64(1)
	for i := size - 2; i >= 0; i-- {
		bit := uint32(v>>i) & 1
		if i >= size-1-learntBits {
			prefix := got<<8 | uint64(size)
			bit = n.model.Bit(c, bit, &rangecoder.Contexts{
				prefix | 1<<32,
				prefix | context<<16 | 2<<32,
				prefix | before&0xff<<16 | 3<<32,
			}, 8)
		} else {
			bit = c.Bit(bit, 1<<15)
		}
		got = got<<1 | uint64(bit)
	}
	return got
}
