// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"encoding/binary"

	"github.com/updaterd/updaterd/bundle/delta/rangecoder"
)

const (
	hotBytes = 32 // behind a difference each byte is asked for the next, so far; then whole blocks of so many
	farthest = 63 // distances from here on are all the same
)

// differences codes where copies differ from the source, and by how much.
type differences struct {
	blocks numbers
	flags  *rangecoder.Model
	words  words

	distance uint64 // bytes since the last difference
	gaps     uint64 // the last three such distances, 6 bits each
}

func newDifferences() differences {
	return differences{
		blocks: newNumbers(),
		flags:  rangecoder.NewModel(8, 0, 16, 2*(hotBytes+1), 32),
		words:  newWords(),
	}
}

func (d *differences) reset() {
	d.blocks.reset()
	d.flags.Reset()
	d.words.reset()
	d.distance, d.gaps = 0, 0
}

// code corrects chunk[at:end], a copy of the source from a position on. What it
// should be is known if want is not nil.
func (d *differences) code(c *rangecoder.Coder, chunk []byte, at, end int, from int64, want []byte) error {
	for at < end {
		most := (end - at + hotBytes - 1) / hotBytes
		blocks := 0 // right before the next difference, and one more; 0: all
		if want != nil {
			if n := common(want[at:end], chunk[at:]); n < end-at {
				blocks = n/hotBytes + 1
			}
		}
		n := d.blocks.code(c, uint64(blocks), uint64(min(most, 32)))
		if n == 0 {
			return nil
		}
		if n > uint64(most) {
			return malformed("differences behind the end of a copy")
		}
		if n > 1 {
			at, from = at+int(n-1)*hotBytes, from+int64(n-1)*hotBytes
			d.distance = hotBytes
		}
		for clean := 0; at < end && clean < hotBytes; {
			differs := uint32(0)
			if want != nil && want[at] != chunk[at] {
				differs = 1
			}
			if d.flag(c, differs, chunk, at, end, from) == 0 {
				at, from, clean = at+1, from+1, clean+1
				d.distance++
				continue
			}
			d.distance = min(d.distance, farthest)
			n := min(wordSize, end-at)
			d.words.code(c, chunk, at, n, from, d.distance|d.gaps<<6&0xfff, want)
			at, from, clean = at+n, from+int64(n), 0
			d.gaps = d.gaps<<6&0x3ffff | d.distance
			d.distance = 0
		}
	}
	return nil
}

// flag codes whether a difference begins at chunk[at].
func (d *differences) flag(c *rangecoder.Coder, differs uint32, chunk []byte, at, end int, from int64) uint32 {
	old := uint64(0)
	if end-at >= wordSize {
		old = uint64(binary.LittleEndian.Uint32(chunk[at:]))
	}
	known := d.words.known(uint32(old), from)
	b := before(chunk, at)
	distance := min(d.distance, farthest)
	return d.flags.Bit(c, differs, &rangecoder.Contexts{
		distance | d.gaps&0x3f<<6,
		distance | d.gaps&0xfff<<6,
		old&0xffff | b&0xff<<16,
		old,
		b&0xffff | uint64(from&3)<<16,
		known | distance<<4 | uint64(from&7)<<10,
		b & 0xffffffff,
		distance | d.gaps<<6 | known<<24,
	}, int(min(distance, hotBytes)+known>>3*(hotBytes+1)))
}
