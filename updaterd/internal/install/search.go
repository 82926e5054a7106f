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
	img   *image
	slots [2]device // the booted slot and the target, nil if it cannot be read
	// at is where each frame may be read when its chunk is made: one more than
	// twice the number of its first block, plus the number of the slot; or 0.
	at []uint32
}

const (
	fromBooted = iota
	fromTarget
)

// search looks for the frames of an image in both slots: one pass over each. Of
// the chunks it is told which ones are to be written.
func (p *plan) search(ctx context.Context, img *image, need []bool) (*found, error) {
	f := &found{img: img}
	search := blocks.NewSearch(img.recipe.Frame, img.frames.Contents())
	for k, slot := range []bootctl.Slot{fromBooted: p.target.Other(), fromTarget: p.target} {
		dev, err := p.e.open(p.e.o.Slots[img.Class][slot], false)
		if err != nil {
			continue // then nothing is found there
		}
		f.slots[k] = dev
		// What cannot be read is not found either.
		if err := p.scan(ctx, slot, img.Class, dev, func() func(blocks.Hash) { return search.In(k) }); err != nil && ctx.Err() != nil {
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
	f.at = make([]uint32, img.units.count())
	for i := range need {
		for k, frame := range img.frames.Frames(i) {
			whole := int64(img.FrameLength(img.recipe, i, k)) == img.recipe.Frame
			if frame.Kind == bundle.Zero || !whole {
				continue
			}
			at, ok := search.Find(frame.Content)
			block := at.Offset / blocks.Size
			// A slot of 8 TiB has frames that are not found.
			if ok && block < 1<<31-1 && (at.Source == fromBooted || img.lasts(i, at.Offset, need)) {
				f.at[i*img.frames.per+k] = 1 + uint32(block)<<1 + uint32(at.Source)
			}
		}
	}
	return f, nil
}

// lasts reports whether a frame at an offset of the target slot is there until
// chunk i is made. The slot changes while it is written: its first block is
// cleared, and what is needed must not have been overwritten by then.
func (img *image) lasts(i int, off int64, need []bool) bool {
	if off < firstBlock {
		return false
	}
	for c := int(off / img.ChunkSize); c <= int((off+img.recipe.Frame-1)/img.ChunkSize); c++ {
		if c < len(need) && need[c] && c != i && c != 0 && (c < i || i == 0) {
			return false
		}
	}
	return true
}

func (f *found) Close() {
	for _, dev := range f.slots {
		if dev != nil {
			dev.Close()
		}
	}
}

// has reports whether a frame may be read when its chunk is made.
func (f *found) has(u int) bool { return f.at[u] != 0 }

// read reads a frame from where it was found into b, which is as long as the
// frame or longer; nil if it is not there.
func (f *found) read(u int, b []byte) []byte {
	if !f.has(u) {
		return nil
	}
	at := f.at[u] - 1
	b = b[:f.img.recipe.Frame]
	if _, err := f.slots[at&1].ReadAt(b, int64(at>>1)*blocks.Size); err != nil || blocks.Sum(b) != f.img.frames.frame(u).Content {
		return nil
	}
	return b
}

// missing yields the frames of chunks that are to be fetched.
func (f *found) missing(chunks iter.Seq[int]) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range chunks {
			for k, frame := range f.img.frames.Frames(i) {
				if u := i*f.img.frames.per + k; !f.has(u) && frame.Length > 0 && !yield(u) {
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
