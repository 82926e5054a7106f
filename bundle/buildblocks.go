// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"github.com/updaterd/updaterd/bundle/blocks"
)

const (
	// DefaultFrame is as long as a frame of a blocks recipe is, unless an image
	// is so large that there would be too many.
	DefaultFrame = 8 << 10
	// framePrefix is the prefix of frames.
	framePrefix = 256 << 10
)

// frameOf is the length of an image's frames.
func frameOf(size, chunkSize int64) int64 {
	frame := int64(DefaultFrame)
	for (size-1)/frame+1 > MaxFrames {
		frame *= 2
	}
	return min(frame, chunkSize)
}

// addBlocks adds the blocks recipe to an image, if it can pay.
func (b *builder) addBlocks(ctx context.Context, in *imageInput, digests []Digest, full *builtRecipe, out *builtImage) error {
	if len(digests) == 1 {
		b.progress(in.size + in.sourceSize())
		b.note("image %q: the blocks recipe is left out: the image is one chunk", in.Class)
		return nil
	}
	recipe, built, err := b.blocks(ctx, in, digests)
	if err != nil {
		return err
	}
	price := int64(len(full.table)) + full.length
	if half := int64(len(built.table)) + built.length/2; half >= price {
		b.progress(in.sourceSize())
		b.note("image %q: the blocks recipe is left out: a device that has half of its data already would fetch %d bytes with it, and with the full recipe %d", in.Class, half, price)
		return nil
	}
	least, err := b.leastFetched(ctx, in, digests, recipe, built, &out.Image)
	if err != nil {
		return err
	}
	if least >= price {
		b.note("image %q: the blocks recipe is left out: with it, a device that has the best of the given images would fetch %d bytes, and with the full recipe %d", in.Class, least, price)
		return nil
	}
	out.add(recipe, built)
	b.note("image %q: the blocks recipe adds %d bytes to the bundle; a device fetches its table, %d bytes, and of the rest what it does not have",
		in.Class, int64(len(built.table))+built.length, len(built.table))
	return nil
}

// leastFetched is what a device would fetch by the blocks recipe that has the
// best of the images that deltas are made from: they are what is known of the
// devices, so others hardly fare better. It is 0 if there are none.
func (b *builder) leastFetched(ctx context.Context, in *imageInput, digests []Digest, r Recipe, built *builtRecipe, img *Image) (least int64, err error) {
	if len(in.sources) == 0 {
		return 0, nil
	}
	r.Table = Table{Extent{Length: int64(len(built.table))}, Sum(built.table)}
	r.Data.Length, r.Prefix = built.length, built.prefix
	frames, err := ParseFrames(img, &r, digests, built.table)
	if err != nil {
		return 0, fmt.Errorf("internal error: %w", err)
	}
	for k, src := range in.sources {
		found := blocks.NewSearch(r.Frame, frames.Contents())
		if err := blocks.Scan(ctx, src, src.size, found.In(0)); err != nil {
			return 0, fmt.Errorf("%s: %w", src.Name(), err)
		}
		b.progress(src.size)
		n := r.Table.Length
		for run := range blocks.Ranges(frames.missing(found), blocks.Gap) {
			n += run.Length
		}
		if k == 0 || n < least {
			least = n
		}
	}
	return least, nil
}

// sourceSize is the size of all images that deltas are made from.
func (in *imageInput) sourceSize() (n int64) {
	for _, src := range in.sources {
		n += src.size
	}
	return n
}

// blocks encodes the blocks recipe.
func (b *builder) blocks(ctx context.Context, in *imageInput, digests []Digest) (Recipe, *builtRecipe, error) {
	recipe := Recipe{Kind: KindBlocks, Frame: frameOf(in.size, b.ChunkSize)}
	rec := b.spool.begin(framePrefix)
	p := &pipeline{
		image: in.input, chunkSize: b.ChunkSize, prefix: framePrefix, workers: b.Workers,
		newWorker: func() (chunkWorker, error) { return newFrameWorker(int(recipe.Frame), digests) },
		emit: func(i, n int, e encodedChunk) error {
			b.progress(int64(n))
			return rec.add(i, e)
		},
	}
	if err := p.run(ctx); err != nil {
		return recipe, nil, err
	}
	r, err := rec.end()
	return recipe, r, err
}

// A frameWorker encodes the frames of a chunk.
type frameWorker struct {
	frame   int
	chunks  []Digest
	zstd    *zstd.Encoder
	decoder *Decoder
	// image is the chunk with its prefix before it.
	image, proof []byte
	out          bytes.Buffer
}

func newFrameWorker(frame int, chunks []Digest) (chunkWorker, error) {
	// Not the best level: its tables are so large that to set them up takes most
	// of the time, once for each frame.
	z, err := newEncoder(zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return nil, err
	}
	d, err := NewDecoder(nil)
	if err != nil {
		z.Close()
		return nil, err
	}
	return &frameWorker{frame: frame, chunks: chunks, zstd: z, decoder: d, proof: make([]byte, frame)}, nil
}

func (w *frameWorker) close() {
	w.zstd.Close()
	w.decoder.Close()
}

func (w *frameWorker) encode(job *chunkJob) (encodedChunk, error) {
	e := encodedChunk{kind: Zero, framed: true, bytes: job.scratch[:0], decoded: Sum(job.chunk)}
	if e.decoded != w.chunks[job.index] {
		return e, errChanged
	}
	if isZero(job.chunk) {
		return e, nil
	}
	w.image = append(append(w.image[:0], job.prefix...), job.chunk...)
	for at := len(job.prefix); at < len(w.image); at += w.frame {
		frame := w.image[at:min(at+w.frame, len(w.image))]
		prefix := w.image[max(0, at-framePrefix):at]
		if job.index == 0 || isZero(prefix) {
			prefix = nil
		}
		f, err := w.encodeFrame(frame, prefix)
		if err != nil {
			return e, fmt.Errorf("frame at %d: %w", at-len(job.prefix), err)
		}
		if f.Kind == Prefixed {
			e.kind = Prefixed
		}
		e.table = appendFrame(e.table, f)
		e.bytes = append(e.bytes, w.out.Bytes()...)
	}
	job.scratch = e.bytes
	return e, nil
}

// encodeFrame leaves the encoded bytes in w.out.
func (w *frameWorker) encodeFrame(frame, prefix []byte) (Frame, error) {
	f := Frame{Kind: Zero, Content: blocks.Sum(frame)}
	w.out.Reset()
	if !isZero(frame) {
		f.Kind = Zstd
		dictionary := zstd.WithEncoderDictDelete()
		if len(prefix) > 0 {
			f.Kind, dictionary = Prefixed, zstd.WithEncoderDictRaw(0, prefix)
		}
		// As a stream, although it is one write: EncodeAll has an encoder of its
		// own, which would be set up for the prefix besides this one.
		if err := w.zstd.ResetWithOptions(&w.out, dictionary); err != nil {
			return f, fmt.Errorf("set up zstd: %w", err)
		}
		if _, err := w.zstd.Write(frame); err != nil {
			return f, err
		}
		if err := w.zstd.Close(); err != nil {
			return f, err
		}
		if w.out.Len() >= len(frame) {
			f.Kind = Raw
			w.out.Reset()
			w.out.Write(frame)
		}
	}
	enc := w.out.Bytes()
	f.Length = len(enc)
	sum := Sum(enc)
	f.digest = [frameDigestSize]byte(sum[:])
	proof := w.proof[:len(frame)]
	if err := w.decoder.DecodeFrame(proof, f, enc, prefix); err != nil || !bytes.Equal(proof, frame) {
		return f, fmt.Errorf("internal error: what was made of it does not give it back: %v", err)
	}
	return f, nil
}
