// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"github.com/updaterd/updaterd/bundle/delta/deflate"
)

// maxExpanded bounds the expanded form of a chunk, and that of the source
// blocks it is compared with.
func maxExpanded(chunk int) int { return min(2*chunk+1<<20, mostExpanded) }

// An expansion is the head of a patch that works on expanded deflate blocks.
type expansion struct {
	length  int         // of the chunk with its runs expanded
	base    int64       // where the pool begins in the copies' source, behind the image
	sources []bitRange  // that expand, one after the other, to the pool
	runs    []runLength // of the chunk
}

// A bitRange is whole deflate blocks of the source image.
type bitRange struct{ from, to int64 }

// A runLength is expanded blocks of the chunk and the bytes before them.
type runLength struct{ gap, length int }

func (x *expansion) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(x.length))
	b = binary.AppendUvarint(b, uint64(x.base))
	b = binary.AppendUvarint(b, uint64(len(x.sources)))
	at := int64(0)
	for _, s := range x.sources {
		b = binary.AppendUvarint(b, zigzag(s.from-at))
		b = binary.AppendUvarint(b, uint64(s.to-s.from))
		at = s.to
	}
	b = binary.AppendUvarint(b, uint64(len(x.runs)))
	for _, r := range x.runs {
		b = binary.AppendUvarint(b, uint64(r.gap))
		b = binary.AppendUvarint(b, uint64(r.length))
	}
	return b
}

// parseExpansion takes an expansion off the front of p, the head of a patch
// for chunk bytes.
func parseExpansion(p []byte, chunk int, srcSize int64) (x expansion, rest []byte, err error) {
	short := false
	number := func(limit int64) int64 {
		u, after, ok := uvarint(p)
		if !ok || u > uint64(limit) {
			short = true
			return 0
		}
		p = after
		return int64(u)
	}
	limit := maxExpanded(chunk)
	x.length = int(number(int64(limit)))
	x.base = number(srcSize)
	// Every entry has two bytes at least, so the patch bounds what is allocated.
	x.sources = make([]bitRange, 0, number(int64(len(p)/2)))
	at := int64(0)
	for range cap(x.sources) {
		from := at + unzigzag(uint64(number(16*maxSource)))
		n := number(16 * int64(limit))
		if short || from < 0 || n == 0 || from > 8*x.base-n {
			return x, nil, malformed("blocks outside the source of %d bytes", srcSize)
		}
		at = from + n
		x.sources = append(x.sources, bitRange{from, at})
	}
	x.runs = make([]runLength, 0, number(int64(len(p)/2)))
	left := int64(x.length)
	for range cap(x.runs) {
		gap := number(left)
		n := number(left - gap)
		if short || n < 3 { // two edges and a block
			return x, nil, malformed("runs that do not fit the chunk")
		}
		left -= gap + n
		x.runs = append(x.runs, runLength{int(gap), int(n)})
	}
	if short || len(x.runs) == 0 {
		return x, nil, malformed("head of expanded blocks is damaged")
	}
	return x, p, nil
}

// An expander makes the pool of an expansion, and puts chunks together again.
type expander struct {
	expand deflate.Expander
	pack   deflate.Packer
	in     []byte // compressed source
	pool   []byte
	chunk  []byte // in expanded form
}

// fill makes the pool from the source.
func (e *expander) fill(x *expansion, chunk int, src io.ReaderAt) error {
	limit := maxExpanded(chunk)
	e.pool = e.pool[:0]
	for _, s := range x.sources {
		first := s.from / 8
		n := int((s.to+7)/8 - first)
		if n > 2*limit { // expanded, it would hardly fit
			return malformed("source blocks of %d bytes", n)
		}
		if cap(e.in) < n {
			e.in = make([]byte, n)
		}
		in := e.in[:n]
		if err := readFull(src, in, first); err != nil {
			return err
		}
		for at, end := int(s.from-8*first), int(s.to-8*first); at != end; {
			if at > end {
				return fmt.Errorf("apply patch: %w: its deflate blocks end elsewhere", ErrSource)
			}
			var err error
			if e.pool, at, _, err = e.expand.Expand(e.pool, in, at, limit); err != nil {
				return fmt.Errorf("apply patch: %w: %v at %d", ErrSource, err, first+int64(at/8))
			}
		}
	}
	return nil
}

// collapse makes dst of its expanded form in e.chunk.
func (e *expander) collapse(dst []byte, runs []runLength) error {
	from, to := e.chunk, dst
	for _, r := range runs {
		if r.gap > len(to) {
			return malformed("expanded chunk is too long")
		}
		copy(to, from[:r.gap])
		n, err := e.packRun(to[r.gap:], from[r.gap:r.gap+r.length])
		if err != nil {
			return fmt.Errorf("apply patch: %w: %v", ErrSource, err)
		}
		from, to = from[r.gap+r.length:], to[r.gap+n:]
	}
	if len(from) != len(to) {
		return fmt.Errorf("apply patch: %w: the chunk would have another length", ErrSource)
	}
	copy(to, from)
	return nil
}

// packRun packs a run: an edge, blocks, an edge. An edge is the bits of the
// run's first and last byte that are not the blocks', below a 1.
func (e *expander) packRun(dst, run []byte) (int, error) {
	blocks, last := run[1:len(run)-1], run[len(run)-1]
	if run[0] == 0 || last == 0 {
		return 0, deflate.ErrBlock
	}
	e.pack.Start(dst, run[0], uint(bits.Len8(run[0])-1))
	for len(blocks) > 0 {
		var err error
		if blocks, err = e.pack.Pack(blocks); err != nil {
			return 0, err
		}
	}
	if uint(bits.Len8(last)-1) != e.pack.Missing() {
		return 0, deflate.ErrBlock
	}
	return e.pack.End(last)
}

// expandRun is the reverse of packRun, for the bits from to to of b.
func (e *expander) expandRun(b []byte, from, to, limit int) ([]byte, error) {
	n := uint(from % 8)
	run := []byte{1<<n | b[from/8]&(1<<n-1)}
	for at := from; at != to; {
		var err error
		if run, at, _, err = e.expand.Expand(run, b, at, limit); err != nil || at > to {
			return nil, deflate.ErrBlock
		}
	}
	edge := byte(1)
	if n := uint(to % 8); n > 0 {
		edge = 1<<(8-n) | b[to/8]>>n
	}
	return append(run, edge), nil
}
