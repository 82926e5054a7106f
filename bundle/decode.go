// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/updaterd/updaterd/bundle/delta"
	"github.com/updaterd/updaterd/bundle/seal"
)

// A Decoder turns encoded chunks into content. It is for one goroutine, and
// holds at most a few MiB whatever it is fed.
type Decoder struct {
	zstd  *zstd.Decoder
	patch delta.Applier
	key   *seal.Key // nil if nothing is sealed
	// zeros is the digest of as many zeros as the last chunk had that was all
	// zeros: an image may be little else.
	zeros Digest
	many  int
}

// NewDecoder returns a Decoder for what is in a bundle, which must be unlocked. It
// is to be closed. Nil is for what is not encrypted.
func NewDecoder(m *Manifest) (*Decoder, error) {
	z, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(MaxChunkSize),
		zstd.WithDecoderMaxMemory(MaxChunkSize),
		// Never grow beyond the chunk that is asked for.
		zstd.WithDecodeAllCapLimit(true),
	)
	if err != nil {
		return nil, fmt.Errorf("set up zstd: %w", err)
	}
	d := &Decoder{zstd: z}
	if m != nil {
		d.key = m.Images[0].key // of all images
	}
	return d, nil
}

// A Basis is what a chunk is made from besides its encoded bytes. Most chunks
// need none.
type Basis struct {
	// Source is what a patch reads, and SourceSize its length.
	Source     io.ReaderAt
	SourceSize int64
	// Prefix are the image's own bytes before a chunk that is Prefixed. They
	// were compared with the digests of their chunks.
	Prefix []byte
}

// Close frees what the decoder holds.
func (d *Decoder) Close() { d.zstd.Close() }

// Decode makes one chunk: enc are the encoded bytes, e their entry, want the
// chunk's digest, and dst is as long as the chunk. What is sealed is opened in
// place: then enc is not what it was.
//
// Bytes that do not match e are ErrEncoded and are not looked at any further. A
// patch that does not yield the chunk is ErrSource. Anything else that does not
// is ErrContent. After an error dst holds nothing of use.
func (d *Decoder) Decode(dst []byte, want Digest, e Entry, enc []byte, from Basis) error {
	if len(enc) != e.Length {
		return fmt.Errorf("decode chunk: %w: %d bytes, the table says %d", ErrEncoded, len(enc), e.Length)
	}
	if got := Sum(enc); got != e.Digest {
		return fmt.Errorf("decode chunk: %w: digest is %v, the table says %v", ErrEncoded, got, e.Digest)
	}
	if err := d.expand(dst, e.Kind, enc, e.Offset, from); err != nil {
		return fmt.Errorf("decode chunk: %w", err)
	}
	if got := d.sum(dst, e.Kind); got != want {
		cause := ErrContent
		if e.Kind == Patch {
			cause = ErrSource
		}
		return fmt.Errorf("decode chunk: %w: digest is %v, the chunk table says %v", cause, got, want)
	}
	return nil
}

func (d *Decoder) sum(chunk []byte, kind Encoding) Digest {
	if kind != Zero {
		return Sum(chunk)
	}
	if d.many != len(chunk) {
		d.zeros, d.many = Sum(chunk), len(chunk)
	}
	return d.zeros
}

// DecodeFrame makes one frame of a chunk: enc are its encoded bytes, prefix is
// what [Window.FramePrefix] says, and dst is as long as the frame. Bytes that are
// not the signed ones are ErrEncoded, as in Decode, and what is sealed is opened in
// place, too. What comes out is good only
// if the whole chunk has its digest.
func (d *Decoder) DecodeFrame(dst []byte, f Frame, enc, prefix []byte) error {
	if err := f.check(enc); err != nil {
		return fmt.Errorf("decode frame: %w", err)
	}
	if err := d.expand(dst, f.Kind, enc, f.Offset, Basis{Prefix: prefix}); err != nil {
		return fmt.Errorf("decode frame: %w", err)
	}
	return nil
}

// expand makes content of authentic bytes that lie at an offset of the payload.
func (d *Decoder) expand(dst []byte, kind Encoding, enc []byte, at int64, from Basis) (err error) {
	if d.key != nil && len(enc) > 0 {
		if enc, err = d.key.Open(enc[:0], enc, at); err != nil {
			return fmt.Errorf("%w: %w", ErrContent, err)
		}
	}
	switch kind {
	case Zero:
		clear(dst)
	case Raw:
		if len(enc) != len(dst) {
			return fmt.Errorf("%w: %d raw bytes for a chunk of %d", ErrContent, len(enc), len(dst))
		}
		copy(dst, enc)
	case Zstd:
		return d.inflate(dst, enc, zstd.WithDecoderDictDelete())
	case Prefixed:
		return d.inflate(dst, enc, zstd.WithDecoderDictRaw(0, from.Prefix))
	case Patch:
		if from.Source == nil {
			return fmt.Errorf("%w: there is no source", ErrSource)
		}
		if err := d.patch.Apply(dst, enc, from.Source, from.SourceSize); err != nil {
			return fmt.Errorf("%w: %w", ErrSource, err)
		}
	default:
		return fmt.Errorf("%w: unknown %v", ErrContent, kind)
	}
	return nil
}

// inflate decodes one zstd frame. The decoder reads a dictionary where it lies,
// and to change it takes no more than a few words of memory.
func (d *Decoder) inflate(dst, enc []byte, dictionary zstd.DOption) error {
	if err := d.zstd.ResetWithOptions(nil, dictionary); err != nil {
		return fmt.Errorf("set up zstd: %w", err)
	}
	out, err := d.zstd.DecodeAll(enc, dst[:0:len(dst)])
	if err != nil {
		return fmt.Errorf("%w: %v", ErrContent, err)
	}
	if len(out) != len(dst) {
		return fmt.Errorf("%w: zstd frame holds %d bytes for a chunk of %d", ErrContent, len(out), len(dst))
	}
	return nil
}
