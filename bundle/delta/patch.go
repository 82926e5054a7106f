// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// minCompressed is the length below which a zstd frame does not pay.
const minCompressed = 24

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
	w, err := x.getWorker()
	if err != nil {
		return nil, err
	}
	defer x.workers.Put(w)
	segments := slices.Clone(w.matcher.match(x.image, target, offset)) // expand uses the matcher again
	w.writer.reset()
	if s := w.expand(x, target, offset, segments); s != nil {
		w.writer.head = s.head.append(append(w.writer.head, versionExpanded))
		w.writer.run(s.chunk, source{x.image.src, s.pool}, s.segments)
		if w.writer.size() <= maxStreams(len(s.chunk)) {
			return w.writer.pack(w.encoder), nil
		}
		w.writer.reset()
	}
	w.writer.head = append(w.writer.head, versionPlain)
	w.writer.run(target, source{x.image.src, nil}, segments)
	if w.writer.size() > maxStreams(len(target)) {
		w.writer.reset()
		w.writer.head = append(w.writer.head, versionPlain)
		w.writer.run(target, source{}, nil)
	}
	return w.writer.pack(w.encoder), nil
}

// A worker is what one call of Patch needs.
type worker struct {
	matcher matcher
	runs    expander
	writer  writer
	encoder *zstd.Encoder
}

// getWorker takes a worker from the pool. All give the same bytes for the
// same chunk, since each works on one goroutine.
func (x *Index) getWorker() (*worker, error) {
	if w, ok := x.workers.Get().(*worker); ok {
		return w, nil
	}
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(8<<20),
		zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("prepare zstd encoder: %w", err)
	}
	return &worker{encoder: e}, nil
}

// A writer collects the streams of one patch.
type writer struct {
	head    []byte // what comes before the streams
	streams [streamCount][]byte
	gap     int // copied bytes since the last difference
}

func (w *writer) reset() {
	w.gap = 0
	w.head = w.head[:0]
	for i := range w.streams {
		w.streams[i] = w.streams[i][:0]
	}
}

// A source is what copies read: the image, and behind it the pool.
type source struct{ image, pool []byte }

func (s source) from(at int) []byte {
	if at < len(s.image) {
		return s.image[at:]
	}
	return s.pool[at-len(s.image):]
}

// run writes instructions that make target of the segments.
func (w *writer) run(target []byte, src source, segments []segment) {
	at, from := 0, 0
	for _, s := range segments {
		from += s.from - at
		w.literal(target[at:s.from])
		w.number(streamControl, uint64(s.to-s.from))
		w.number(streamShifts, zigzag(int64(s.from+s.shift-from)))
		w.words(target[s.from:s.to], src.from(s.from+s.shift))
		at, from = s.to, s.to+s.shift
	}
	if at < len(target) {
		w.literal(target[at:])
		w.number(streamControl, 0)
	}
}

func (w *writer) literal(b []byte) {
	w.number(streamControl, uint64(len(b)))
	w.streams[streamLiterals] = append(w.streams[streamLiterals], b...)
}

// words writes the differences between a copy and what it copies.
func (w *writer) words(target, src []byte) {
	for i := 0; i < len(target); {
		if n := common(target[i:], src); n > 0 {
			w.gap += n
			i += n
			src = src[n:]
			continue
		}
		n := min(wordSize, len(target)-i)
		// Sign-extended, so that a small negative difference is a short number.
		drop := 8 * (wordSize - n)
		d := int32(word(target[i:i+n])-word(src[:n])) << drop >> drop
		w.number(streamGaps, uint64(w.gap))
		w.number(streamWords, zigzag(int64(d)))
		w.gap = 0
		i += n
		src = src[n:]
	}
}

// word reads a little-endian word that may be short.
func word(b []byte) uint32 {
	if len(b) == wordSize {
		return binary.LittleEndian.Uint32(b)
	}
	v := uint32(0)
	for i, c := range b {
		v |= uint32(c) << (8 * i)
	}
	return v
}

func (w *writer) number(stream int, v uint64) {
	w.streams[stream] = binary.AppendUvarint(w.streams[stream], v)
}

func (w *writer) size() int {
	n := 0
	for _, s := range w.streams {
		n += len(s)
	}
	return n
}

// pack compresses the streams that gain from it and puts the patch together.
func (w *writer) pack(e *zstd.Encoder) []byte {
	patch := append([]byte(nil), w.head...)
	var encoded [streamCount][]byte
	for i, s := range w.streams {
		encoded[i] = s
		if len(s) >= minCompressed {
			if z := e.EncodeAll(s, nil); len(z) < len(s) {
				encoded[i] = z
			}
		}
		patch = binary.AppendUvarint(patch, uint64(len(s)))
		patch = binary.AppendUvarint(patch, uint64(len(encoded[i])))
	}
	for _, b := range encoded {
		patch = append(patch, b...)
	}
	return patch
}
