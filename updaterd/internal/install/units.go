// SPDX-License-Identifier: Apache-2.0

package install

import (
	"iter"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/blocks"
)

// units are what of a recipe's data can be fetched on its own: encoded chunks,
// or encoded frames.
type units interface {
	// count is above every unit's number.
	count() int
	// order yields the numbers in the order of the data.
	order() iter.Seq[int]
	// place is where the encoded bytes lie in the payload.
	place(u int) (off int64, n int)
	// good reports whether b are the encoded bytes.
	good(u int, b []byte) bool
	// gap is the longest one between two needed units that is fetched along with
	// them, because a request of its own costs more.
	gap() int64
}

// chunkUnits are numbered as the chunks are.
type chunkUnits []bundle.Entry

func (c chunkUnits) count() int                { return len(c) }
func (c chunkUnits) order() iter.Seq[int]      { return bundle.Order(len(c)) }
func (c chunkUnits) place(u int) (int64, int)  { return c[u].Offset, c[u].Length }
func (c chunkUnits) good(u int, b []byte) bool { return bundle.Sum(b) == c[u].Digest }

func (c chunkUnits) gap() int64 { return bridge }

// bridge is about what the headers of a request and its answer cost.
const bridge = 2 << 10

// frameUnits are numbered through all chunks, each of which has the same number
// of numbers, also if it needs fewer.
type frameUnits struct {
	*bundle.FrameTable
	chunks, per int
}

func newFrameUnits(img *bundle.Image, r *bundle.Recipe, t *bundle.FrameTable) *frameUnits {
	return &frameUnits{t, img.ChunkCount(), img.FrameCount(r, 0)}
}

func (f *frameUnits) count() int { return f.chunks * f.per }

func (f *frameUnits) order() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range bundle.Order(f.chunks) {
			for k := range f.Frames(i) {
				if !yield(i*f.per + k) {
					return
				}
			}
		}
	}
}

func (f *frameUnits) frame(u int) bundle.Frame {
	for k, frame := range f.Frames(u / f.per) {
		if k == u%f.per {
			return frame
		}
	}
	return bundle.Frame{}
}

func (f *frameUnits) place(u int) (int64, int) {
	frame := f.frame(u)
	return frame.Offset, frame.Length
}

func (f *frameUnits) gap() int64 { return blocks.Gap }

func (f *frameUnits) good(u int, b []byte) bool { return f.frame(u).Is(b) }
