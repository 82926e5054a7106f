// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"crypto/sha256"
	"fmt"
	"io"
	"slices"

	"github.com/updaterd/updaterd/bundle/delta/deflate"
)

const (
	minStream = 64        // compressed bytes below which a stream is left alone
	maxBlock  = 4 << 20   // longest block in expanded form
	maxPool   = 128 << 20 // expanded source that is kept in memory
	scanPiece = 16 << 20  // an image is scanned in such pieces at a time
	scanOver  = 2 << 10   // and so far beyond, for a header that begins in one piece and ends in the next
)

// Streams are the deflate streams found in an image.
type Streams struct {
	list []stream
}

// A stream is a series of whole deflate blocks that follow each other.
type stream struct {
	bounds []int // bit positions in the image: where each block begins, then the end
	sum    [sha256.Size]byte
}

func (s stream) firstByte() int { return s.bounds[0] / 8 }
func (s stream) endByte() int   { return (s.bounds[len(s.bounds)-1] + 7) / 8 }

// FindStreams looks for deflate streams in the first size bytes of an image: in
// gzip files, zip archives and zlib data, wherever they lie.
func FindStreams(image io.ReaderAt, size int64) (*Streams, error) {
	src, err := openSource(image, size)
	if err != nil {
		return nil, fmt.Errorf("look for compressed data: %w", err)
	}
	s := &Streams{scan(src.b)}
	return s, src.close()
}

// scan finds the streams of b in ascending order, not overlapping.
func scan(b []byte) []stream {
	pieces := make([][]stream, (len(b)+scanPiece-1)/scanPiece)
	parallel(len(pieces), 1, func(from, to int) {
		for i := from; i < to; i++ {
			pieces[i] = scanFrom(b, i*scanPiece, min(len(b), (i+1)*scanPiece+scanOver))
		}
	})
	var all []stream
	end := 0
	for _, s := range slices.Concat(pieces...) {
		// One may begin inside what belongs to a stream of the piece before.
		if s.firstByte() >= end {
			all = append(all, s)
			end = s.endByte()
		}
	}
	return all
}

// scanFrom finds the streams whose headers are in b[from:to].
func scanFrom(b []byte, from, to int) (list []stream) {
	var x deflate.Expander
	var scratch []byte
	for at := deflate.Next(b[:to], from); at < to; at = deflate.Next(b[:to], min(at, to)) {
		bounds := []int{8 * at}
		for last := false; !last; {
			var bit int
			var err error
			if scratch, bit, last, err = x.Expand(scratch[:0], b, bounds[len(bounds)-1], maxBlock); err != nil {
				break
			}
			bounds = append(bounds, bit)
		}
		s := stream{bounds: bounds}
		if s.endByte()-at >= minStream {
			s.sum = sha256.Sum256(b[at:s.endByte()])
			list = append(list, s)
			at = s.endByte()
		}
	}
	return list
}

// newer drops what is the same in both lists: a plain copy does for it.
func newer(target, source []stream) (t, s []stream) {
	sums := func(list []stream) map[[sha256.Size]byte]bool {
		m := make(map[[sha256.Size]byte]bool, len(list))
		for _, s := range list {
			m[s.sum] = true
		}
		return m
	}
	old, kept := sums(source), sums(target)
	t = slices.DeleteFunc(slices.Clone(target), func(s stream) bool { return old[s.sum] })
	s = slices.DeleteFunc(source, func(s stream) bool { return kept[s.sum] })
	return t, s
}

// A pool is the expanded form of source streams.
type pool struct {
	*seeds
	blocks []block // ascending in both places
}

// A block is a deflate block of the source.
type block struct {
	bit, end int // in the image
	at       int // of its expanded form in the pool, which ends where the next begins
}

func newPool(src []byte, list []stream) *pool {
	p := &pool{}
	var x deflate.Expander
	var b []byte
	for _, s := range list {
		for i, bit := range s.bounds[:len(s.bounds)-1] {
			out, _, _, err := x.Expand(b, src, bit, maxPool)
			if err != nil { // the pool is full
				break
			}
			p.blocks = append(p.blocks, block{bit: bit, end: s.bounds[i+1], at: len(b)})
			b = out
		}
	}
	p.seeds = newSeeds(b)
	return p
}
