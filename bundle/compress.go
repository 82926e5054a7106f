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
type builtIn struct{ plain *zstd.Encoder }

func newBuiltIn() (compressor, error) {
	z, err := newEncoder()
	return builtIn{z}, err
}

func (c builtIn) compress(chunk, prefix, scratch []byte) ([]byte, error) {
	if len(prefix) == 0 {
		return c.plain.EncodeAll(chunk, scratch), nil
	}
	// One encoder for each prefix: to give another one to an encoder sets up the
	// tables twice, for EncodeAll and for a stream that there is not. Dictionary
	// 0 is one that the frame does not name.
	z, err := newEncoder(zstd.WithEncoderDictRaw(0, prefix))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return z.EncodeAll(chunk, scratch), nil
}

func (c builtIn) close() { c.plain.Close() }

func newEncoder(more ...zstd.EOption) (*zstd.Encoder, error) {
	z, err := zstd.NewWriter(nil, append([]zstd.EOption{
		zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		// One goroutine per frame: how a frame comes out must not depend on the machine.
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(MaxPrefix + MaxChunkSize),
		zstd.WithSingleSegment(true),
		// The table has a better digest of the frame, the chunk table of its content.
		zstd.WithEncoderCRC(false),
	}, more...)...)
	if err != nil {
		return nil, fmt.Errorf("set up zstd: %w", err)
	}
	return z, nil
}
