// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"iter"
	"path/filepath"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/durable"
	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/blocks"
)

// A found knows where in the slots of a class frames of a blocks recipe lie. It
// is a hint: what is read is compared, and so is the chunk that is made of it.
type found struct {
	img    *image
	search *blocks.Search
	slots  [2]device // the booted slot and the target, nil if it cannot be read
	need   []bool    // chunks that are to be written
}

const (
	fromBooted = iota
	fromTarget
)

// search looks for the frames of an image in both slots: one pass over each.
func (p *plan) search(ctx context.Context, img *image, need []bool) (*found, error) {
	f := &found{img: img, need: need, search: blocks.NewSearch(img.recipe.Frame, img.frames.Contents())}
	for k, slot := range []bootctl.Slot{fromBooted: p.target.Other(), fromTarget: p.target} {
		dev, err := p.e.open(p.e.o.Slots[img.Class][slot], false)
		if err != nil {
			continue // then nothing is found there
		}
		f.slots[k] = dev
		// What cannot be read is not found either.
		if err := p.scan(ctx, slot, img.Class, dev, func() func(blocks.Hash) { return f.search.In(k) }); err != nil && ctx.Err() != nil {
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
	return f, nil
}

func (f *found) Close() {
	for _, dev := range f.slots {
		if dev != nil {
			dev.Close()
		}
	}
}

// place is where frame k of chunk i may be read when the chunk is made.
func (f *found) place(i, k int, frame bundle.Frame) (blocks.Place, bool) {
	n := int64(f.img.FrameLength(f.img.recipe, i, k))
	if frame.Kind == bundle.Zero || n != f.img.recipe.Frame {
		return blocks.Place{}, false
	}
	at, ok := f.search.Find(frame.Content)
	if !ok || at.Source == fromBooted {
		return at, ok
	}
	// The target slot changes while it is written: its first block is cleared,
	// and what is needed of it must not have been overwritten by then.
	if at.Offset < firstBlock {
		return at, false
	}
	for c := int(at.Offset / f.img.ChunkSize); c <= int((at.Offset+n-1)/f.img.ChunkSize); c++ {
		if c < len(f.need) && f.need[c] && c != i && c != 0 && (c < i || i == 0) {
			return at, false
		}
	}
	return at, true
}

// read reads a frame from where it was found into b, which is as long as the
// frame or longer; nil if it is not there.
func (f *found) read(u int, b []byte) []byte {
	per, frame := f.img.frames.per, f.img.frames.frame(u)
	at, ok := f.place(u/per, u%per, frame)
	if !ok || f.slots[at.Source] == nil {
		return nil
	}
	b = b[:f.img.recipe.Frame]
	if _, err := f.slots[at.Source].ReadAt(b, at.Offset); err != nil || blocks.Sum(b) != frame.Content {
		return nil
	}
	return b
}

// missing yields the frames of chunks that are to be fetched.
func (f *found) missing(chunks iter.Seq[int]) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range chunks {
			for k, frame := range f.img.frames.Frames(i) {
				if _, ok := f.place(i, k, frame); !ok && frame.Length > 0 && !yield(i*f.img.frames.per+k) {
					return
				}
			}
		}
	}
}

// scan gives the hashes of a slot's blocks to what emit returns. A slot of which
// it is recorded what was installed there keeps them in a file, named after
// that, so that they are worked out once for an image.
func (p *plan) scan(ctx context.Context, slot bootctl.Slot, class string, dev device, emit func() func(blocks.Hash)) error {
	size, path := dev.Size(), ""
	for _, r := range p.e.o.Records() {
		if name := headName(r.Digest, indexName); r.Slot == slot && r.Class == class && name != "" && r.Size > 0 && r.Size <= size {
			size, path = r.Size, filepath.Join(p.e.store.dir, name)
		}
	}
	if path == "" {
		return blocks.Scan(ctx, dev, size, emit())
	}
	if p.readIndex(path, size/blocks.Size, emit()) {
		return nil
	}
	out, err := p.newIndex(size / blocks.Size)
	if err != nil {
		return blocks.Scan(ctx, dev, size, emit())
	}
	next := emit()
	err = blocks.Scan(ctx, dev, size, func(h blocks.Hash) {
		next(h)
		out.add(h)
	})
	out.end(path, err)
	return err
}

const (
	indexName = "index"
	hashSize  = 8
)

// readIndex reads n hashes from a file.
func (p *plan) readIndex(path string, n int64, emit func(blocks.Hash)) bool {
	f, err := p.e.store.files.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != n*hashSize {
		return false
	}
	r := bufio.NewReaderSize(f, 64<<10)
	var b [hashSize]byte
	for ; n > 0; n-- {
		for k := range b {
			if b[k], err = r.ReadByte(); err != nil {
				return false
			}
		}
		emit(blocks.Hash(binary.LittleEndian.Uint64(b[:])))
	}
	return true
}

// An index is a file of hashes that is being written. That is worth a try and no
// more: without it they are worked out again.
type index struct {
	files durable.FS
	path  string // until it is complete
	f     durable.File
	w     *bufio.Writer
	err   error
}

func (p *plan) newIndex(n int64) (*index, error) {
	if err := p.fits(0, n*hashSize); err != nil {
		return nil, err
	}
	// Several may be made at once. What a power cut leaves of one, prune removes.
	path := filepath.Join(p.e.store.dir, ".index."+rand.Text())
	f, err := p.e.store.files.Create(path, 0o600)
	if err != nil {
		return nil, err
	}
	return &index{files: p.e.store.files, path: path, f: f, w: bufio.NewWriterSize(f, 64<<10)}, nil
}

func (x *index) add(h blocks.Hash) {
	var b [hashSize]byte
	binary.LittleEndian.PutUint64(b[:], uint64(h))
	if _, err := x.w.Write(b[:]); err != nil {
		x.err = err
	}
}

func (x *index) end(path string, err error) {
	for _, step := range []func() error{func() error { return x.err }, x.w.Flush, x.f.Sync} {
		if err == nil {
			err = step()
		}
	}
	x.f.Close()
	if err == nil {
		err = x.files.Rename(x.path, path)
	}
	if err != nil {
		_ = x.files.RemoveAll(x.path)
		return
	}
	_ = x.files.SyncDir(filepath.Dir(path))
}
