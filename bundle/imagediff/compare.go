// SPDX-License-Identifier: Apache-2.0

package imagediff

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/fsmap"
)

// Options say what Compare compares.
type Options struct {
	Old, New string // paths
	// ChunkSize is bundle.DefaultChunkSize if 0.
	ChunkSize int64
	// Scratch is the directory for a temporary file, which has no name and is
	// about as large as a bundle.
	Scratch string
	// Progress, if set, is told the bytes done so far and in all.
	Progress func(done, total int64)
}

// Compare tells what the delta from one image to another costs and why.
func Compare(ctx context.Context, o Options) (*Report, error) {
	was, err := open(ctx, o.Old)
	if err != nil {
		return nil, err
	}
	defer was.Close()
	is, err := open(ctx, o.New)
	if err != nil {
		return nil, err
	}
	defer is.Close()
	// The blocks are read after the chunks were measured, and count as one more
	// pass over each image.
	scanned := was.size + is.size
	var measured int64
	progress := func(done int64) {
		if o.Progress != nil {
			o.Progress(measured+done, measured+scanned)
		}
	}
	m, err := bundle.Measure(ctx, bundle.Measurement{
		Image: o.New, Source: o.Old, ChunkSize: o.ChunkSize, Scratch: o.Scratch,
		Progress: func(done, total int64) {
			measured = total
			progress(done - total)
		},
	})
	if err != nil {
		return nil, err
	}
	c := &comparison{was: was, is: is, measured: m, unit: unit(was.fs, is.fs)}
	if err := c.scan(ctx, progress); err != nil {
		return nil, err
	}
	return c.report(), nil
}

// A side is one image and what is in it.
type side struct {
	*os.File
	size int64
	fs   *fsmap.Map // never nil
	why  string     // no file system, or not all of it, was read
	// contents has a hash for the contents of each file.
	contents []uint64
}

func open(ctx context.Context, path string) (*side, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s := &side{File: f}
	if s.size, err = f.Seek(0, io.SeekEnd); err == nil {
		s.fs, err = fsmap.Read(ctx, f, s.size)
	}
	head := make([]byte, bundle.HeaderSize)
	if _, e := f.ReadAt(head, 0); e == nil {
		if _, e := bundle.ParseHeader(head); e == nil {
			f.Close()
			return nil, fmt.Errorf("open %s: it is a bundle; updater-bundle apply makes an image of it", path)
		}
	}
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, fsmap.ErrUnknown):
		s.fs, s.why, err = &fsmap.Map{}, err.Error(), nil
	case err != nil && s.size > 0 && s.fs == nil:
		s.fs, s.why, err = &fsmap.Map{}, err.Error(), nil
	case err == nil:
		s.why = s.fs.Incomplete
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return s, nil
}

func (s *side) describe(id bundle.Source) Side {
	return Side{
		Path: s.Name(), Size: id.Size, Digest: id.Digest.String(), BuildID: id.BuildID, FileSystem: s.fs.Type,
		BlockSize: s.fs.BlockSize, Compression: s.fs.Compression, UUID: s.fs.UUID, Unread: s.why,
	}
}

// A comparison is one run of Compare.
type comparison struct {
	was, is  *side
	measured *bundle.Measured
	unit     int64

	owners []owner // areas first, then the files of the new image
	chunks []chunk
	files  []FileCost
}

func (c *comparison) report() *Report {
	m := c.measured
	r := &Report{Areas: []AreaCost{}, Files: []FileCost{}, Old: c.was.describe(m.Source), New: c.is.describe(m.Image), ChunkSize: m.ChunkSize}
	tables := int64(len(m.Full)) * (bundle.DigestSize + bundle.EntrySize)
	r.Delta, r.Full = tables, tables
	r.Chunks.All = len(m.Full)
	for i := range m.Full {
		r.Delta += int64(m.Delta[i].Length)
		r.Full += int64(m.Full[i].Length)
		switch {
		case m.Delta[i].Kind == bundle.Zero:
			r.Chunks.Zero++
		case c.chunks[i].same:
			r.Chunks.Same++
		case m.Delta[i].Kind == bundle.Patch:
			r.Chunks.Patched++
		default:
			r.Chunks.Full++
		}
	}
	c.share()
	for i := range c.owners[:areas] {
		r.Blocks.add(c.owners[i].Blocks)
		if o := &c.owners[i]; o.Blocks != (Blocks{}) || o.cost >= 1 {
			r.Areas = append(r.Areas, AreaCost{areaName(i), int64(o.cost + 0.5), o.Blocks})
		}
	}
	r.Areas = append(r.Areas, AreaCost{Area: "tables of the recipe", Cost: tables})
	c.judge()
	for i := range c.files {
		if c.files[i].Cost > 0 {
			r.Files = append(r.Files, c.files[i])
		}
	}
	r.Regions = c.regions()
	slices.SortStableFunc(r.Areas, func(a, b AreaCost) int { return cmp.Compare(b.Cost, a.Cost) })
	slices.SortStableFunc(r.Files, func(a, b FileCost) int { return cmp.Compare(b.Cost, a.Cost) })
	r.Findings = c.findings(r)
	return r
}

// maxRegions is how many chunks a report lists.
const maxRegions = 20

func (c *comparison) regions() []Region {
	all := []Region{}
	for i, e := range c.measured.Delta {
		if e.Length == 0 || c.chunks[i].same {
			continue
		}
		all = append(all, Region{int64(i) * c.measured.ChunkSize, int64(e.Length), e.Kind.String(), int64(c.measured.Full[i].Length), c.holds(i)})
	}
	slices.SortStableFunc(all, func(a, b Region) int { return cmp.Compare(b.Cost, a.Cost) })
	return all[:min(len(all), maxRegions)]
}

// holds names what costs most in a chunk.
func (c *comparison) holds(i int) []string {
	var shares []share
	for _, s := range c.chunks[i].shares {
		if k := slices.IndexFunc(shares, func(o share) bool { return o.owner == s.owner }); k >= 0 {
			shares[k].weight += s.weight
		} else {
			shares = append(shares, s)
		}
	}
	slices.SortStableFunc(shares, func(a, b share) int { return cmp.Compare(b.weight, a.weight) })
	names := []string{}
	for _, s := range shares[:min(len(shares), 3)] {
		if s.owner < areas {
			names = append(names, areaName(s.owner))
		} else {
			names = append(names, c.is.fs.Files[s.owner-areas].Path)
		}
	}
	return names
}

// sameAt tells whether the old image has b at this very place.
func (s *side) sameAt(b, buf []byte, at int64) (bool, []byte) {
	n := min(int64(len(b)), s.size-at)
	if n <= 0 {
		return false, nil
	}
	buf = buf[:n]
	if _, err := io.ReadFull(io.NewSectionReader(s, at, n), buf); err != nil {
		return false, nil
	}
	return bytes.Equal(b, buf), buf
}
