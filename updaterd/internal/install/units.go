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
	// perChunk is how many of them a chunk has: chunk 0 has the first ones.
	perChunk() int
	// place is where the encoded bytes lie in the payload.
	place(u int) (off int64, n int)
	// good reports whether b are the encoded bytes.
	good(u int, b []byte) bool
	// gap is the longest one between two needed units that is fetched along with
	// them, because a request of its own costs more.
	gap() int64
}

// nth is the unit with the nth place in the data, which begins with chunk 1 and
// ends with chunk 0. So no list of the order is kept: there may be very many.
func nth(all units, n int) int { return (n + all.perChunk()) % all.count() }

// placeOf is the place in the data of unit u.
func placeOf(all units, u int) int { return (u - all.perChunk() + all.count()) % all.count() }

// inOrder yields the marked units from number u on, in the order of the data.
func inOrder(all units, marked []bool, u int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for n := placeOf(all, u); n < all.count(); n++ {
			if u := nth(all, n); marked[u] && !yield(u) {
				return
			}
		}
	}
}

// chunkUnits are numbered as the chunks are.
type chunkUnits []bundle.Entry

func (c chunkUnits) count() int                { return len(c) }
func (c chunkUnits) perChunk() int             { return 1 }
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

func (f *frameUnits) perChunk() int { return f.per }

func (f *frameUnits) frame(u int) bundle.Frame { return f.Frame(u/f.per, u%f.per) }

func (f *frameUnits) place(u int) (int64, int) {
	frame := f.frame(u)
	return frame.Offset, frame.Length
}

func (f *frameUnits) gap() int64 { return blocks.Gap }

func (f *frameUnits) good(u int, b []byte) bool { return f.frame(u).Is(b) }
