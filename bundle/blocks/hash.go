// SPDX-License-Identifier: Apache-2.0

package blocks

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
)

const (
	// Size is the length of a block.
	Size = 4 << 10
	// MaxFrame is the length of the longest frame.
	MaxFrame = 1 << 20
)

// A Hash is a block's or a frame's: the first eight bytes of a SHA-256, as a
// little-endian number.
type Hash uint64

// SumBlock is the hash of one block. The last one of an image may be shorter.
func SumBlock(b []byte) Hash { return first(sha256.Sum256(b)) }

// Combine is the hash of a frame of at most [MaxFrame] bytes, made of the hashes
// of its blocks. So it is known for any run of blocks without reading them again.
func Combine(blocks []Hash) Hash {
	var buf [MaxFrame / Size * 8]byte
	b := buf[:0]
	for _, h := range blocks {
		b = binary.LittleEndian.AppendUint64(b, uint64(h))
	}
	return first(sha256.Sum256(b))
}

// Sum is the hash of a frame.
func Sum(frame []byte) Hash {
	var buf [MaxFrame / Size]Hash
	hashes := buf[:0]
	for len(frame) > 0 {
		n := min(Size, len(frame))
		hashes = append(hashes, SumBlock(frame[:n]))
		frame = frame[n:]
	}
	return Combine(hashes)
}

func first(sum [sha256.Size]byte) Hash { return Hash(binary.LittleEndian.Uint64(sum[:])) }

// Scan gives the hash of every whole block of a source to emit, in order.
func Scan(ctx context.Context, source io.ReaderAt, size int64, emit func(Hash)) error {
	buf := make([]byte, 64*Size)
	for off := int64(0); size-off >= Size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(int64(len(buf)), (size-off)/Size*Size)]
		if _, err := io.ReadFull(io.NewSectionReader(source, off, int64(len(b))), b); err != nil {
			return fmt.Errorf("read source at %d: %w", off, err)
		}
		off += int64(len(b))
		for ; len(b) > 0; b = b[Size:] {
			emit(SumBlock(b[:Size]))
		}
	}
	return nil
}
