// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/updaterd/updaterd/bundle/delta"
)

// A builtImage is an image of the manifest, but for the offsets, with its tables.
type builtImage struct {
	Image
	chunks  []byte
	recipes []*builtRecipe // as in Image.Recipes
}

// A builtRecipe has its data in the spool.
type builtRecipe struct {
	entries []Entry // offsets are those in the spool
	table   []byte
	start   int64
	length  int64
	prefix  int64 // 0 if no chunk is Prefixed
	sealed  []piece
}

// image encodes one image: the full recipe first, because a delta takes a chunk
// from there when a patch does not pay.
func (b *builder) image(ctx context.Context, in *imageInput) (*builtImage, error) {
	out := &builtImage{Image: Image{Class: in.Class, Size: in.size, BuildID: in.BuildID, ChunkSize: b.ChunkSize}}
	digests, full, err := b.full(ctx, in, out)
	if err != nil {
		return nil, err
	}
	for _, d := range digests {
		out.chunks = append(out.chunks, d[:]...)
	}
	out.Chunks = Table{Extent{Length: int64(len(out.chunks))}, Sum(out.chunks)}
	known := make(map[Digest]string)
	for k, src := range in.sources {
		source, err := b.identify(ctx, in, k)
		if err != nil {
			return nil, fmt.Errorf("delta from %s: %w", src.Name(), err)
		}
		if twin, twice := known[source.Digest]; twice {
			b.note("image %q: %s is the same image as %s; there is one delta for both", in.Class, src.Name(), twin)
			b.progress(in.size)
			continue
		}
		known[source.Digest] = src.Name()
		r, err := b.delta(ctx, in, k, digests, full)
		if err != nil {
			return nil, fmt.Errorf("delta from %s: %w", src.Name(), err)
		}
		switch {
		case source.Digest == out.Digest:
			b.note("image %q: %s is the new image itself; is it the right file?", in.Class, src.Name())
		case source.BuildID != "" && source.BuildID == out.BuildID:
			b.note("image %q: %s is another image, but has the same build id %s; a device may take the one for the other and then needs the full recipe", in.Class, src.Name(), source.BuildID)
		}
		// A patch compresses what is new a little better than zstd, but slowly: that alone is not worth a source.
		if r.length >= full.length-full.length/16 {
			b.note("image %q: the delta from %s is left out: it has %d bytes, the full recipe %d", in.Class, src.Name(), r.length, full.length)
			continue
		}
		out.add(Recipe{Kind: KindDelta, Source: &source}, r)
	}
	if b.Blocks {
		if err := b.addBlocks(ctx, in, digests, full, out); err != nil {
			return nil, fmt.Errorf("blocks: %w", err)
		}
	}
	out.add(Recipe{Kind: KindFull}, full)
	return out, nil
}

func (img *builtImage) add(r Recipe, built *builtRecipe) {
	r.Table = Table{Extent{Length: int64(len(built.table))}, Sum(built.table)}
	r.Data.Length = built.length
	r.Prefix = built.prefix
	img.Recipes = append(img.Recipes, r)
	img.recipes = append(img.recipes, built)
}

// full encodes the full recipe and learns on the way what the image is.
func (b *builder) full(ctx context.Context, in *imageInput, img *builtImage) ([]Digest, *builtRecipe, error) {
	hash := sha256.New()
	var ids buildIDs
	var digests []Digest
	rec := b.spool.begin(b.Prefix)
	p := &pipeline{
		image: in.input, chunkSize: b.ChunkSize, prefix: b.Prefix, workers: b.Workers,
		newWorker: func() (chunkWorker, error) { return newFullWorker(b.newCompressor) },
		seen: func(chunk []byte) {
			hash.Write(chunk)
			ids.Write(chunk)
		},
		emit: func(i, n int, e encodedChunk) error {
			digests = append(digests, e.decoded)
			b.progress(int64(n))
			return rec.add(i, e)
		},
	}
	if err := p.run(ctx); err != nil {
		return nil, nil, err
	}
	img.Digest = Digest(hash.Sum(nil))
	if img.BuildID == "" {
		img.BuildID = ids.result()
	}
	r, err := rec.end()
	return digests, r, err
}

// identify learns what source k of an image is. The image in a bundle is made first.
func (b *builder) identify(ctx context.Context, in *imageInput, k int) (source Source, err error) {
	src := in.sources[k]
	if src.from != nil {
		source, err = b.unpack(ctx, src)
	} else {
		source, err = Identify(ctx, src, src.size)
		b.progress(src.size)
	}
	if err != nil {
		return Source{}, err
	}
	if id := in.Deltas[k].BuildID; id != "" {
		source.BuildID = id
	}
	if source.BuildID == "" {
		b.note("image %q: no build id is found in %s, so only devices that recorded the digest of their image will use its delta; give its build id if you know it", in.Class, src.Name())
	}
	return source, nil
}

// delta encodes the delta against source k of an image.
func (b *builder) delta(ctx context.Context, in *imageInput, k int, digests []Digest, full *builtRecipe) (*builtRecipe, error) {
	src := in.sources[k]
	// An index is the most that is ever held. What the recipe before has left would
	// be held beside it, because the collector waits until there is as much again.
	debug.FreeOSMemory()
	if in.streams == nil {
		var err error
		if in.streams, err = delta.FindStreams(in.File, in.size); err != nil {
			return nil, err
		}
	}
	index, err := delta.NewIndex(src.File, src.size, in.streams)
	if err != nil {
		return nil, err
	}
	defer index.Close()
	rec := b.spool.begin(b.Prefix)
	p := &pipeline{
		image: in.input, chunkSize: b.ChunkSize, workers: b.Workers,
		newWorker: func() (chunkWorker, error) {
			d, err := NewDecoder(nil)
			if err != nil {
				return nil, err
			}
			return &deltaWorker{index: index, source: src, full: full, chunks: digests, spool: b.spool, decoder: d, size: b.ChunkSize}, nil
		},
		emit: func(i, n int, e encodedChunk) error {
			b.progress(int64(n))
			return rec.add(i, e)
		},
	}
	if err := p.run(ctx); err != nil {
		return nil, err
	}
	return rec.end()
}

// A spool takes the encoded chunks of every recipe in the order in which they
// are made. Only when all are there are the tables, and with them the head, known.
type spool struct {
	file *os.File
	size int64
}

// A recording is one recipe on its way into the spool. Chunk 0 comes first and
// is held back to the end: docs/bundle-format.md#order-of-chunks.
type recording struct {
	spool       *spool
	first       encodedChunk
	chunkPrefix int64 // of the chunks that are Prefixed
	builtRecipe
}

func (s *spool) begin(prefix int64) *recording {
	return &recording{spool: s, chunkPrefix: prefix, builtRecipe: builtRecipe{start: s.size}}
}

func (r *recording) add(i int, e encodedChunk) error {
	if e.kind == Prefixed {
		r.prefix = r.chunkPrefix
	}
	if e.framed {
		r.table = append(r.table, e.table...)
	} else {
		r.table = appendEntry(r.table, e.entry())
	}
	if i == 0 {
		r.first = e
		r.first.bytes = append([]byte(nil), e.bytes...)
		r.entries = append(r.entries, e.entry())
		return nil
	}
	entry := e.entry()
	entry.Offset = r.spool.size
	r.entries = append(r.entries, entry)
	return r.spool.write(e.bytes)
}

func (r *recording) end() (*builtRecipe, error) {
	r.entries[0].Offset = r.spool.size
	if err := r.spool.write(r.first.bytes); err != nil {
		return nil, err
	}
	r.length = r.spool.size - r.start
	return &r.builtRecipe, nil
}

func (s *spool) write(b []byte) error {
	_, err := s.Write(b)
	return err
}

// Write appends b.
func (s *spool) Write(b []byte) (int, error) {
	n, err := s.file.WriteAt(b, s.size)
	if err != nil {
		return n, fmt.Errorf("write temporary file: %w", err)
	}
	s.size += int64(n)
	return n, nil
}

// copyTo copies a part of it.
func (s *spool) copyTo(w io.Writer, start, length int64) error {
	if _, err := s.file.Seek(start, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(w, s.file, length)
	return err
}
