// SPDX-License-Identifier: Apache-2.0

package imagediff

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"slices"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/fsmap"
)

// The owners of blocks: each fsmap.Area, what has no file system, what costs
// though nothing in it changed; and then the files.
const (
	ownerRaw = fsmap.Areas + iota
	ownerUnchanged
	areas
)

func areaName(owner int) string {
	switch owner {
	case ownerRaw:
		return "data without a known file system"
	case ownerUnchanged:
		return "overhead of unchanged chunks"
	}
	return fsmap.Area(owner).String()
}

// An owner is a file or an area.
type owner struct {
	Blocks
	cost float64
}

// A chunk is one of the new image.
type chunk struct {
	same   bool
	shares []share
}

// A share is how much an owner changed in a chunk.
type share struct {
	owner  int
	weight int64
}

// maxUnit is the size of the blocks that are looked up in the old image.
const maxUnit = 4 << 10

// unit is the largest size of which blocks begin at the same places in both.
func unit(a, b *fsmap.Map) int64 {
	n := int64(maxUnit)
	for _, m := range []*fsmap.Map{a, b} {
		if m.BlockSize > 0 {
			n = min(n, m.BlockSize)
		}
	}
	return n
}

// A scanner cuts the pieces of an image into units. It counts them from the
// start of each piece, because a compressed file may begin anywhere.
type scanner struct {
	*side
	unit int64
	buf  []byte
	done int64
}

// scanStep is how much is read at once; a multiple of every unit.
const scanStep = 1 << 20

func (s *scanner) piece(ctx context.Context, p fsmap.Piece, f func(at int64, b []byte)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for p.Length > 0 {
		b := s.buf[:min(p.Length, scanStep)]
		if _, err := io.ReadFull(io.NewSectionReader(s, p.Offset, int64(len(b))), b); err != nil {
			return fmt.Errorf("read %s at %d: %w", s.Name(), p.Offset, err)
		}
		for i := int64(0); i < int64(len(b)); i += s.unit {
			f(p.Offset+i, b[i:min(i+s.unit, int64(len(b)))])
		}
		s.done += int64(len(b))
		p.Offset += int64(len(b))
		p.Length -= int64(len(b))
	}
	return nil
}

// all goes through an image: the files, each in the order of its contents, then
// the rest. It calls f with the owner and the place of every unit.
func (s *scanner) all(ctx context.Context, progress func(int64), f func(owner int, at int64, b []byte)) error {
	for i := range s.fs.Files {
		for _, p := range s.fs.Files[i].Pieces {
			if err := s.piece(ctx, p, func(at int64, b []byte) { f(areas+i, at, b) }); err != nil {
				return err
			}
			progress(s.done)
		}
	}
	end := int64(0)
	gap := func(to int64) error {
		owner := int(fsmap.Unused)
		if len(s.fs.Extents) == 0 || end >= s.fs.Size {
			owner = ownerRaw
		}
		// In steps, because of the progress.
		for ; end < to; end += min(64*scanStep, to-end) {
			if err := s.piece(ctx, fsmap.Piece{Offset: end, Length: min(64*scanStep, to-end)}, func(at int64, b []byte) { f(owner, at, b) }); err != nil {
				return err
			}
			progress(s.done)
		}
		return nil
	}
	for _, e := range s.fs.Extents {
		if err := gap(e.Offset); err != nil {
			return err
		}
		if end = e.Offset + e.Length; e.Area == fsmap.Contents && e.File >= 0 {
			continue
		}
		owner := int(e.Area)
		if e.File >= 0 && e.Area == fsmap.Directory {
			owner = areas + e.File
		}
		if err := s.piece(ctx, e.Piece, func(at int64, b []byte) { f(owner, at, b) }); err != nil {
			return err
		}
		progress(s.done)
	}
	return gap(s.size)
}

// scan reads both images once and tells for each block of the new one what
// became of it.
func (c *comparison) scan(ctx context.Context, progress func(done int64)) error {
	seed := maphash.MakeSeed()
	known := make(map[uint64]struct{})
	c.was.contents = make([]uint64, len(c.was.fs.Files))
	c.is.contents = make([]uint64, len(c.is.fs.Files))
	old := &scanner{side: c.was, unit: c.unit, buf: make([]byte, scanStep)}
	err := old.all(ctx, progress, func(owner int, at int64, b []byte) {
		if isZero(b) {
			return
		}
		h := maphash.Bytes(seed, b)
		known[h] = struct{}{}
		c.was.note(owner, h)
	})
	if err != nil {
		return err
	}
	c.owners = make([]owner, areas+len(c.is.fs.Files))
	c.chunks = make([]chunk, len(c.measured.Delta))
	for i := range c.chunks {
		c.chunks[i].same = c.measured.Delta[i].Kind != bundle.Zero
	}
	buf, buf2 := make([]byte, c.unit), make([]byte, c.unit)
	before := c.followers()
	now := &scanner{side: c.is, unit: c.unit, buf: make([]byte, scanStep)}
	return now.all(ctx, func(done int64) { progress(c.was.size + done) }, func(owner int, at int64, b []byte) {
		n := int64(len(b))
		same, there := c.was.sameAt(b, buf, at)
		earlier := before(owner, n, buf2)
		var fate Blocks
		weight := int64(0)
		if isZero(b) {
			fate.Zero = n
			if !same {
				weight = 1
			}
		} else {
			h := maphash.Bytes(seed, b)
			c.is.note(owner, h)
			if same {
				fate.Same = n
			} else if _, elsewhere := known[h]; elsewhere {
				fate.Moved = n
				weight = 1 + n/movedWeight
			} else {
				fate.Changed = n
				weight = 1 + min(differing(b, there), differing(b, earlier))
			}
		}
		c.owners[owner].Blocks.add(fate)
		if !same {
			c.change(owner, at, n, weight)
		}
	})
}

// followers returns a function that is called for every unit of the new image
// and returns what the file it is in had at this place before, as far as known.
func (c *comparison) followers() func(owner int, n int64, buf []byte) []byte {
	old := make(map[string]*fsmap.File)
	for i := range c.was.fs.Files {
		old[c.was.fs.Files[i].Path] = &c.was.fs.Files[i]
	}
	current := -1
	var pieces []fsmap.Piece // of the old file, not yet passed
	return func(owner int, n int64, buf []byte) []byte {
		if owner != current {
			current, pieces = owner, nil
			if owner >= areas {
				if f := old[c.is.fs.Files[owner-areas].Path]; f != nil {
					pieces = slices.Clone(f.Pieces)
				}
			}
		}
		if len(pieces) == 0 {
			return nil
		}
		// Units begin where pieces begin, so one that goes on in the next is rare.
		p := &pieces[0]
		b := buf[:min(n, p.Length)]
		if _, err := io.ReadFull(io.NewSectionReader(c.was, p.Offset, int64(len(b))), b); err != nil {
			b = nil
		}
		p.Offset += int64(len(b))
		if p.Length -= int64(len(b)); p.Length <= 0 || b == nil {
			pieces = pieces[1:]
		}
		return b
	}
}

// movedWeight: a block that was moved costs about this much less than one that
// is new, because a patch has to say where it was.
const movedWeight = 1 << 10

// note takes a block into the contents of its file.
func (s *side) note(owner int, h uint64) {
	if owner >= areas {
		x := &s.contents[owner-areas]
		*x = (*x ^ h) * 0x9e3779b97f4a7c15
		*x ^= *x >> 29
	}
}

// change gives an owner its share in the chunks that a changed block lies in.
func (c *comparison) change(owner int, at, n, weight int64) {
	size := c.measured.ChunkSize
	for i := at / size; i <= (at+n-1)/size; i++ {
		k := &c.chunks[i]
		k.same = false
		part := weight * (min(at+n, (i+1)*size) - max(at, i*size)) / n
		if last := len(k.shares) - 1; last >= 0 && k.shares[last].owner == owner {
			k.shares[last].weight += part
		} else {
			k.shares = append(k.shares, share{owner, part})
		}
	}
}

// share splits the cost of each chunk among those who changed in it. An area
// has what its files have, too.
func (c *comparison) share() {
	for i, e := range c.measured.Delta {
		k := &c.chunks[i]
		total := int64(0)
		for _, s := range k.shares {
			total += s.weight
		}
		if total == 0 {
			c.owners[ownerUnchanged].cost += float64(e.Length)
			continue
		}
		for _, s := range k.shares {
			c.owners[s.owner].cost += float64(e.Length) * float64(s.weight) / float64(total)
		}
	}
	for i := range c.is.fs.Files {
		area := fsmap.Contents
		if c.is.fs.Files[i].IsDir() {
			area = fsmap.Directory
		}
		o, f := &c.owners[area], &c.owners[areas+i]
		o.cost += f.cost
		o.Blocks.add(f.Blocks)
	}
}

// differing counts the bytes in which a block is not what was there before.
func differing(b, before []byte) int64 {
	n := int64(len(b) - len(before))
	for i := range before {
		if b[i] != before[i] {
			n++
		}
	}
	return n
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
