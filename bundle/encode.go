// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"fmt"

	"github.com/updaterd/updaterd/bundle/delta"
)

// A fullWorker encodes chunks without a source.
type fullWorker struct {
	compressor
	decoder *Decoder
	proof   []byte
}

func newFullWorker(newCompressor func() (compressor, error)) (chunkWorker, error) {
	c, err := newCompressor()
	if err != nil {
		return nil, err
	}
	d, err := NewDecoder(nil)
	if err != nil {
		c.close()
		return nil, err
	}
	return &fullWorker{compressor: c, decoder: d}, nil
}

func (w *fullWorker) close() {
	w.compressor.close()
	w.decoder.Close()
}

func (w *fullWorker) encode(job *chunkJob) (encodedChunk, error) {
	chunk := job.chunk
	e := encodedChunk{kind: Zero, decoded: Sum(chunk)}
	if !isZero(chunk) {
		prefix := job.prefix
		if e.kind = Prefixed; isZero(prefix) {
			// It would only cost the device time to have it at hand.
			e.kind, prefix = Zstd, nil
		}
		var err error
		if e.bytes, err = w.compress(chunk, prefix, job.scratch[:0]); err != nil {
			return e, err
		}
		if job.scratch = e.bytes; len(e.bytes) >= len(chunk) {
			e.kind, e.bytes = Raw, chunk
		}
	}
	e.encoded = Sum(e.bytes)
	if cap(w.proof) < len(chunk) {
		w.proof = make([]byte, len(chunk))
	}
	if err := w.decoder.Decode(w.proof[:len(chunk)], e.decoded, e.entry(), e.bytes, Basis{Prefix: job.prefix}); err != nil {
		return e, fmt.Errorf("internal error: what was made of it does not give it back: %v", err)
	}
	return e, nil
}

// A deltaWorker encodes chunks as patches where that pays.
type deltaWorker struct {
	index   *delta.Index
	source  input
	full    *builtRecipe
	chunks  []Digest
	spool   *spool
	decoder *Decoder
	size    int64 // of a chunk
	proof   []byte
}

var errChanged = errors.New("the image changed while it was read; build again when nobody writes to it")

func (w *deltaWorker) close() { w.decoder.Close() }

func (w *deltaWorker) encode(job *chunkJob) (encodedChunk, error) {
	i, chunk := job.index, job.chunk
	want, full := w.chunks[i], w.full.entries[i]
	if Sum(chunk) != want {
		return encodedChunk{}, errChanged
	}
	if full.Kind == Zero {
		return encodedChunk{kind: Zero, encoded: full.Digest, decoded: want}, nil
	}
	patch, err := w.index.Patch(chunk, int64(i)*w.size)
	if err != nil {
		return encodedChunk{}, err
	}
	if len(patch) >= full.Length {
		enc := make([]byte, full.Length)
		if _, err := w.spool.file.ReadAt(enc, full.Offset); err != nil {
			return encodedChunk{}, fmt.Errorf("read temporary file: %w", err)
		}
		return encodedChunk{kind: full.Kind, bytes: enc, encoded: full.Digest, decoded: want}, nil
	}
	e := encodedChunk{kind: Patch, bytes: patch, encoded: Sum(patch), decoded: want}
	if cap(w.proof) < len(chunk) {
		w.proof = make([]byte, len(chunk))
	}
	err = w.decoder.Decode(w.proof[:len(chunk)], want, e.entry(), patch, Basis{Source: w.source, SourceSize: w.source.size})
	if errors.Is(err, ErrSource) {
		err = fmt.Errorf("internal error: patch does not give its chunk, or %s changed while it was read: %w", w.source.Name(), err)
	}
	return e, err
}

// entry has no offset yet.
func (e encodedChunk) entry() Entry {
	return Entry{Kind: e.kind, Length: len(e.bytes), Digest: e.encoded}
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
