// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Apply makes the chunk dst from a patch and the first srcSize bytes of src.
// Use an Applier to apply more than one patch.
func Apply(dst, patch []byte, src io.ReaderAt, srcSize int64) error {
	a, err := NewApplier()
	if err != nil {
		return err
	}
	defer a.Close()
	return a.Apply(dst, patch, src, srcSize)
}

// An Applier applies patches one after the other and keeps its buffers
// between them. It must not be used by two goroutines at once.
type Applier struct {
	zstd    *zstd.Decoder
	streams [streamCount][]byte
	runs    expander
}

// NewApplier makes an Applier; Close frees it.
func NewApplier() (*Applier, error) {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow),
		zstd.WithDecoderMaxMemory(maxWindow),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("prepare zstd decoder: %w", err)
	}
	return &Applier{zstd: d}, nil
}

// Close frees what the Applier holds. It must not be used afterwards.
func (a *Applier) Close() {
	a.zstd.Close()
	a.streams, a.runs = [streamCount][]byte{}, expander{}
}

// Apply makes the chunk dst from a patch and the first srcSize bytes of src.
// After an error the content of dst is undefined.
func (a *Applier) Apply(dst, patch []byte, src io.ReaderAt, srcSize int64) error {
	if len(dst) > MaxTarget {
		return fmt.Errorf("apply patch: chunk of %d bytes is longer than %d", len(dst), MaxTarget)
	}
	if srcSize < 0 || srcSize > maxSource {
		return fmt.Errorf("apply patch: source size %d is out of range", srcSize)
	}
	switch {
	case len(patch) > 0 && patch[0] == versionPlain:
		return a.copies(dst, patch[1:], &program{src: src, srcSize: srcSize})
	case len(patch) > 0 && patch[0] == versionExpanded:
		return a.expanded(dst, patch[1:], src, srcSize)
	}
	return malformed("no patch of a version that is known")
}

// expanded applies a patch that works on expanded deflate blocks.
func (a *Applier) expanded(dst, patch []byte, src io.ReaderAt, srcSize int64) error {
	x, rest, err := parseExpansion(patch, len(dst), srcSize)
	if err != nil {
		return err
	}
	if err := a.runs.fill(&x, len(dst), src); err != nil {
		return err
	}
	if cap(a.runs.chunk) < x.length {
		a.runs.chunk = make([]byte, x.length)
	}
	a.runs.chunk = a.runs.chunk[:x.length]
	p := &program{src: src, srcSize: x.base, pool: a.runs.pool}
	if err := a.copies(a.runs.chunk, rest, p); err != nil {
		return err
	}
	return a.runs.collapse(dst, x.runs)
}

// copies makes dst by the streams of a patch.
func (a *Applier) copies(dst, patch []byte, p *program) error {
	ext, err := parse(patch, len(dst))
	if err != nil {
		return err
	}
	var s [streamCount][]byte
	for i := range s {
		if s[i], err = a.decode(i, ext[i]); err != nil {
			return err
		}
	}
	p.control, p.shifts, p.literals = s[streamControl], s[streamShifts], s[streamLiterals]
	p.words = words{gaps: s[streamGaps], values: s[streamWords]}
	return p.run(dst)
}

// decode returns the decoded stream i, in a buffer that is used again.
func (a *Applier) decode(i int, e extent) ([]byte, error) {
	if len(e.encoded) == e.decoded {
		return e.encoded, nil
	}
	if cap(a.streams[i]) < e.decoded {
		a.streams[i] = make([]byte, 0, e.decoded)
	}
	b, err := a.zstd.DecodeAll(e.encoded, a.streams[i][:0:e.decoded])
	if err != nil {
		return nil, malformed("stream %d: %v", i, err)
	}
	if len(b) != e.decoded {
		return nil, malformed("stream %d has %d bytes instead of %d", i, len(b), e.decoded)
	}
	return b, nil
}

// A program is the part of the decoded streams that is still to be run.
type program struct {
	control, shifts, literals []byte
	words                     words
	src                       io.ReaderAt
	srcSize                   int64
	pool                      []byte // what lies behind the source
	from                      int64  // where the source goes on if the alignment stays
}

func (p *program) run(dst []byte) error {
	if err := p.words.advance(); err != nil {
		return err
	}
	for len(dst) > 0 {
		literal, copied, err := p.next(len(dst))
		if err != nil {
			return err
		}
		copy(dst, p.literals[:literal])
		p.literals = p.literals[literal:]
		p.from += int64(literal) // at most maxSource + MaxTarget
		if copied > 0 {
			if err := p.copy(dst[literal : literal+copied]); err != nil {
				return err
			}
		}
		dst = dst[literal+copied:]
	}
	if len(p.control) != 0 || len(p.shifts) != 0 || len(p.literals) != 0 || !p.words.done() {
		return malformed("instructions or bytes are left over")
	}
	return nil
}

// next takes an instruction off the control stream: so many literal bytes,
// then so many copied ones, at least one and at most room together.
func (p *program) next(room int) (literal, copied int, err error) {
	lit, rest, ok1 := uvarint(p.control)
	cpy, rest, ok2 := uvarint(rest)
	if !ok1 || !ok2 {
		return 0, 0, malformed("control stream is cut off")
	}
	p.control = rest
	if lit > uint64(room) || cpy > uint64(room)-lit || lit+cpy == 0 {
		return 0, 0, malformed("instruction for %d + %d bytes where %d are wanted", lit, cpy, room)
	}
	if lit > uint64(len(p.literals)) {
		return 0, 0, malformed("literal stream is cut off")
	}
	return int(lit), int(cpy), nil
}

// copy fills dst from the source, the alignment moved by the next shift, and
// corrects the words that differ.
func (p *program) copy(dst []byte) error {
	u, rest, ok := uvarint(p.shifts)
	if !ok {
		return malformed("shift stream is cut off")
	}
	// The shift is bounded before it is added, so nothing overflows.
	shift, n, size := unzigzag(u), int64(len(dst)), p.srcSize+int64(len(p.pool))
	if shift < -p.from || shift > size-n-p.from {
		return malformed("copy of %d bytes lies outside the source of %d bytes", n, size)
	}
	p.shifts = rest
	p.from += shift
	if err := p.read(dst, p.from); err != nil {
		return err
	}
	p.from += n
	return p.words.apply(dst)
}

// read fills b from one place of the source, or of the pool behind it.
func (p *program) read(b []byte, at int64) error {
	switch {
	case at >= p.srcSize:
		copy(b, p.pool[at-p.srcSize:])
		return nil
	case int64(len(b)) > p.srcSize-at:
		return malformed("copy of %d bytes leaves the source of %d bytes", len(b), p.srcSize)
	}
	return readFull(p.src, b, at)
}

func readFull(src io.ReaderAt, b []byte, at int64) error {
	n, err := src.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes of the source at %d: %w", len(b), at, err)
}

// words is the differences not yet applied. A difference belongs to a
// position in the sequence of all copied bytes.
type words struct {
	gaps, values []byte
	next         int // copied bytes before the next difference; -1: there is none
}

func (w *words) done() bool { return w.next < 0 && len(w.values) == 0 }

// advance takes the next gap off its stream.
func (w *words) advance() error {
	if len(w.gaps) == 0 {
		w.next = -1
		return nil
	}
	gap, rest, ok := uvarint(w.gaps)
	if !ok || gap > MaxTarget {
		return malformed("gap stream is damaged")
	}
	w.next, w.gaps = int(gap), rest
	return nil
}

// apply adds the differences that fall into the copied bytes b.
func (w *words) apply(b []byte) error {
	at := 0
	for w.next >= 0 {
		if w.next >= len(b)-at {
			w.next -= len(b) - at
			return nil
		}
		at += w.next
		u, rest, ok := uvarint(w.values)
		if !ok || u > 1<<(8*wordSize)-1 {
			return malformed("word stream is damaged")
		}
		w.values = rest
		at += addWord(b[at:], uint32(unzigzag(u)))
		if err := w.advance(); err != nil {
			return err
		}
	}
	return nil
}

// addWord adds v to the little-endian word at the front of b, which is
// shorter at the end of a copy, and returns the word's width.
func addWord(b []byte, v uint32) int {
	if len(b) >= wordSize {
		binary.LittleEndian.PutUint32(b, binary.LittleEndian.Uint32(b)+v)
		return wordSize
	}
	carry := uint32(0)
	for i := range b {
		carry += uint32(b[i]) + v&0xff
		b[i] = byte(carry)
		carry >>= 8
		v >>= 8
	}
	return len(b)
}
