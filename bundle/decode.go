// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/updaterd/updaterd/bundle/delta"
)

// A Decoder turns encoded chunks into content. It is for one goroutine, and
// holds at most a few MiB whatever it is fed.
type Decoder struct {
	zstd  *zstd.Decoder
	patch *delta.Applier
}

// NewDecoder returns a Decoder that is to be closed.
func NewDecoder() (*Decoder, error) {
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
	p, err := delta.NewApplier()
	if err != nil {
		z.Close()
		return nil, err
	}
	return &Decoder{zstd: z, patch: p}, nil
}

// Close frees what the decoder holds.
func (d *Decoder) Close() {
	d.zstd.Close()
	d.patch.Close()
}

// Decode makes one chunk: enc are the encoded bytes, e their entry, want the
// chunk's digest, and dst is as long as the chunk. A patch reads src, which has
// srcSize bytes; other encodings ignore it.
//
// Bytes that do not match e are ErrEncoded and are not looked at any further. A
// patch that does not yield the chunk is ErrSource. Anything else that does not
// is ErrContent. After an error dst holds nothing of use.
func (d *Decoder) Decode(dst []byte, want Digest, e Entry, enc []byte, src io.ReaderAt, srcSize int64) error {
	if len(enc) != e.Length {
		return fmt.Errorf("decode chunk: %w: %d bytes, the table says %d", ErrEncoded, len(enc), e.Length)
	}
	if got := Sum(enc); got != e.Digest {
		return fmt.Errorf("decode chunk: %w: digest is %v, the table says %v", ErrEncoded, got, e.Digest)
	}
	if err := d.expand(dst, e.Kind, enc, src, srcSize); err != nil {
		return fmt.Errorf("decode chunk: %w", err)
	}
	if got := Sum(dst); got != want {
		cause := ErrContent
		if e.Kind == Patch {
			cause = ErrSource
		}
		return fmt.Errorf("decode chunk: %w: digest is %v, the chunk table says %v", cause, got, want)
	}
	return nil
}

func (d *Decoder) expand(dst []byte, kind Encoding, enc []byte, src io.ReaderAt, srcSize int64) error {
	switch kind {
	case Zero:
		clear(dst)
	case Raw:
		if len(enc) != len(dst) {
			return fmt.Errorf("%w: %d raw bytes for a chunk of %d", ErrContent, len(enc), len(dst))
		}
		copy(dst, enc)
	case Zstd:
		out, err := d.zstd.DecodeAll(enc, dst[:0:len(dst)])
		if err != nil {
			return fmt.Errorf("%w: %v", ErrContent, err)
		}
		if len(out) != len(dst) {
			return fmt.Errorf("%w: zstd frame holds %d bytes for a chunk of %d", ErrContent, len(out), len(dst))
		}
	case Patch:
		if src == nil {
			return fmt.Errorf("%w: there is no source", ErrSource)
		}
		if err := d.patch.Apply(dst, enc, src, srcSize); err != nil {
			return fmt.Errorf("%w: %w", ErrSource, err)
		}
	default:
		return fmt.Errorf("%w: unknown %v", ErrContent, kind)
	}
	return nil
}
