// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"bytes"
	"fmt"
	"slices"
)

// Patch encodes one chunk of the target. offset is the chunk's position in
// the target image: the source is looked at there first, and any offset gives
// a correct patch. Calls may run in parallel.
func (x *Index) Patch(target []byte, offset int64) ([]byte, error) {
	if len(target) > MaxTarget {
		return nil, fmt.Errorf("make patch: chunk of %d bytes is longer than %d", len(target), MaxTarget)
	}
	if offset < 0 {
		return nil, fmt.Errorf("make patch: offset is negative (%d)", offset)
	}
	w := x.getWorker()
	defer x.workers.Put(w)
	image := origin{image: bytes.NewReader(x.image.src), size: int64(len(x.image.src))}
	segments := slices.Clone(w.matcher.match(x.image, target, offset)) // expand uses the matcher again
	if e := w.expand(x, target, offset, segments); e != nil {
		image.pool = e.pool
		return w.encode(e.head.append([]byte{versionExpanded}), e.chunk, image, e.segments)
	}
	return w.encode([]byte{versionPlain}, target, image, segments)
}

// A worker is what one call of Patch needs.
type worker struct {
	matcher matcher
	runs    expander
	codec   *codec
	scratch []byte
}

// getWorker takes a worker from the pool. All give the same bytes for the
// same chunk, since each works on one goroutine.
func (x *Index) getWorker() *worker {
	if w, ok := x.workers.Get().(*worker); ok {
		return w
	}
	return &worker{codec: newCodec()}
}

// encode appends to the head of a patch the instructions that make target.
func (w *worker) encode(head, target []byte, source origin, segments []segment) ([]byte, error) {
	if cap(w.scratch) < len(target) {
		w.scratch = make([]byte, len(target))
	}
	patch, err := w.codec.encode(head, w.scratch[:len(target)], target, source, segments)
	if err != nil {
		return nil, fmt.Errorf("make patch: %w", err)
	}
	return patch, nil
}
