// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// A compressor makes one zstd frame of a chunk. The frame may refer to the
// prefix, which may be empty. Each goroutine has its own.
type compressor interface {
	// compress may keep its result in scratch.
	compress(chunk, prefix, scratch []byte) ([]byte, error)
	close()
}

// builtIn is the compressor that is always there.
type builtIn struct{ plain, prefixed *zstd.Encoder }

func newBuiltIn() (compressor, error) {
	plain, err := newEncoder(zstd.SpeedBestCompression)
	if err != nil {
		return nil, err
	}
	prefixed, err := newEncoder(zstd.SpeedBestCompression)
	return &builtIn{plain, prefixed}, err
}

func newEncoder(level zstd.EncoderLevel) (*zstd.Encoder, error) {
	z, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(level),
		// One goroutine per frame: how a frame comes out must not depend on the machine.
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(MaxPrefix+MaxChunkSize),
		zstd.WithSingleSegment(true),
		// The table has a better digest of the frame, the chunk table of its content.
		zstd.WithEncoderCRC(false),
	)
	if err != nil {
		return nil, fmt.Errorf("set up zstd: %w", err)
	}
	return z, nil
}

func (c *builtIn) compress(chunk, prefix, scratch []byte) ([]byte, error) {
	if len(prefix) == 0 {
		return c.plain.EncodeAll(chunk, scratch), nil
	}
	// Dictionary 0 is one that the frame does not name.
	if err := c.prefixed.ResetWithOptions(nil, zstd.WithEncoderDictRaw(0, prefix)); err != nil {
		return nil, fmt.Errorf("set up zstd: %w", err)
	}
	return c.prefixed.EncodeAll(chunk, scratch), nil
}

func (c *builtIn) close() {
	c.plain.Close()
	c.prefixed.Close()
}
