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
	a.streams = [streamCount][]byte{}
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
	w := &words{gaps: s[streamGaps], values: s[streamWords]}
	if err := w.advance(); err != nil {
		return err
	}
	control, literals := s[streamControl], s[streamLiterals]
	from := int64(0) // where the source continues if the alignment stays
	for at := 0; at < len(dst); {
		var o op
		if o, control, err = nextOp(control, len(dst)-at); err != nil {
			return err
		}
		if o.literal > len(literals) {
			return malformed("a literal of %d bytes at %d is cut off", o.literal, at)
		}
		copy(dst[at:], literals[:o.literal])
		literals = literals[o.literal:]
		at += o.literal
		from += int64(o.literal) // at most maxSource + MaxTarget
		if o.copy == 0 {
			continue
		}
		if from, err = o.locate(from, srcSize); err != nil {
			return err
		}
		if err := readFull(src, dst[at:at+o.copy], from); err != nil {
			return err
		}
		if err := w.apply(dst[at : at+o.copy]); err != nil {
			return err
		}
		at += o.copy
		from += int64(o.copy)
	}
	if len(control) != 0 || len(literals) != 0 || !w.done() {
		return malformed("instructions or bytes are left over")
	}
	return nil
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

// An op is one instruction: literal bytes, then bytes copied from the source
// with the alignment moved by shift.
type op struct {
	literal, copy int
	shift         int64
}

// nextOp takes an instruction off the control stream. It produces at least
// one and at most room bytes.
func nextOp(control []byte, room int) (o op, rest []byte, err error) {
	lit, rest, ok1 := uvarint(control)
	cpy, rest, ok2 := uvarint(rest)
	if !ok1 || !ok2 {
		return o, nil, malformed("control stream is cut off")
	}
	if lit > uint64(room) || cpy > uint64(room)-lit || lit+cpy == 0 {
		return o, nil, malformed("instruction for %d + %d bytes where %d are wanted", lit, cpy, room)
	}
	o.literal, o.copy = int(lit), int(cpy)
	if cpy > 0 {
		u, r, ok := uvarint(rest)
		if !ok {
			return o, nil, malformed("control stream is cut off")
		}
		o.shift, rest = unzigzag(u), r
	}
	return o, rest, nil
}

// locate returns where in the source the copy of o begins.
func (o op) locate(from, srcSize int64) (int64, error) {
	n := int64(o.copy)
	// The difference is bounded before it is added, so nothing overflows.
	if o.shift < -from || o.shift > srcSize-n-from {
		return 0, malformed("copy of %d bytes lies outside the source of %d bytes", n, srcSize)
	}
	return from + o.shift, nil
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
