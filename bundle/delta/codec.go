// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"errors"
	"fmt"
	"io"

	"github.com/updaterd/updaterd/bundle/delta/rangecoder"
)

// alignments are remembered for copies to come back to, so many.
const alignments = 8

// A codec codes the instructions of a patch in both directions, with one
// range code. What has been decoded of the chunk, and the source, tell how likely is what
// comes next; so encoding makes the chunk as decoding does.
type codec struct {
	coder    rangecoder.Coder
	lengths  numbers // of literals
	copies   numbers // lengths of copies
	recent   numbers // which alignment
	shifts   numbers // to a new one
	literals literals
	diffs    differences

	source origin
	chunk  []byte
	want   []byte            // what chunk becomes, if that is known
	at     int               // chunk[:at] is done
	align  [alignments]int64 // from a place in the chunk to its place in the source; the last first
	hint   []byte
}

func newCodec() *codec {
	return &codec{
		lengths: newNumbers(), copies: newNumbers(), recent: newNumbers(), shifts: newNumbers(),
		literals: newLiterals(), diffs: newDifferences(),
		hint: make([]byte, hintBytes),
	}
}

// start forgets all that was learnt.
func (k *codec) start(chunk, want []byte, source origin) {
	for _, n := range []*numbers{&k.lengths, &k.copies, &k.recent, &k.shifts} {
		n.reset()
	}
	k.literals.reset()
	k.diffs.reset()
	k.source, k.chunk, k.want, k.at, k.align = source, chunk, want, 0, [alignments]int64{}
}

// encode appends the instructions that make want, by the segments, to patch.
// scratch is as long as want.
func (k *codec) encode(patch, scratch, want []byte, source origin, segments []segment) ([]byte, error) {
	k.start(scratch, want, source)
	k.coder.Encode(patch)
	for _, s := range segments {
		if err := k.instruction(s.from-k.at, s.to-s.from, int64(s.shift)); err != nil {
			return nil, err
		}
	}
	if k.at < len(want) {
		if err := k.instruction(len(want)-k.at, 0, 0); err != nil {
			return nil, err
		}
	}
	return k.coder.Finish(), nil
}

// decode makes chunk by the instructions.
func (k *codec) decode(chunk, instructions []byte, source origin) error {
	k.start(chunk, nil, source)
	k.coder.Decode(instructions)
	for k.at < len(chunk) {
		if err := k.instruction(0, 0, 0); err != nil {
			return err
		}
		if err := k.coder.Err(); err != nil {
			return malformed("%v", err)
		}
	}
	if err := k.coder.End(); err != nil {
		return malformed("%v", err)
	}
	return nil
}

// instruction codes so many literal bytes, and so many that are copied with an alignment.
func (k *codec) instruction(literal, copied int, align int64) error {
	room := uint64(len(k.chunk) - k.at)
	n := k.lengths.code(&k.coder, uint64(literal), 0)
	if n > room {
		return malformed("literal of %d bytes where %d are wanted", n, room)
	}
	end := k.at + int(n)
	if n > 0 {
		hint, err := k.source.hint(k.hint, int64(k.at)+k.align[0], int(n))
		if err != nil {
			return err
		}
		k.literals.code(&k.coder, k.chunk, k.at, end, k.want, hint)
		k.at = end
	}
	context := min(n, 20)
	m := k.copies.code(&k.coder, uint64(copied), context)
	if m > room-n || n+m == 0 {
		return malformed("copy of %d bytes where %d are wanted", m, room-n)
	}
	if m == 0 {
		return nil
	}
	if err := k.turn(align, context); err != nil {
		return err
	}
	from := int64(k.at) + k.align[0]
	end = k.at + int(m)
	if err := k.source.read(k.chunk[k.at:end], from); err != nil {
		return err
	}
	if err := k.diffs.code(&k.coder, k.chunk, k.at, end, from, k.want); err != nil {
		return err
	}
	k.at = end
	return nil
}

// turn codes the alignment of a copy and puts it first.
func (k *codec) turn(align int64, context uint64) error {
	i := 0
	for i < alignments && k.align[i] != align {
		i++
	}
	n := k.recent.code(&k.coder, uint64(i), context)
	if n > alignments {
		return malformed("alignment %d of %d", n, alignments)
	}
	i = int(n)
	if i < alignments {
		align = k.align[i]
	} else {
		i--
		shift := unzigzag(k.shifts.code(&k.coder, zigzag(align-k.align[0]), 0))
		if shift > 2*maxSource || shift < -2*maxSource {
			return malformed("alignment moves by %d", shift)
		}
		align = k.align[0] + shift
		if align > maxSource || align < -mostExpanded {
			return malformed("alignment %d", align)
		}
	}
	copy(k.align[1:i+1], k.align[:i])
	k.align[0] = align
	return nil
}

// An origin is what copies read: the image, and behind it the pool.
type origin struct {
	image io.ReaderAt
	size  int64
	pool  []byte
}

// read fills b from one place of the image or of the pool.
func (o *origin) read(b []byte, at int64) error {
	n, whole := int64(len(b)), o.size+int64(len(o.pool))
	switch {
	case at < 0 || at > whole-n:
		return malformed("copy of %d bytes lies outside the source of %d bytes", n, whole)
	case at >= o.size:
		copy(b, o.pool[at-o.size:])
		return nil
	case n > o.size-at:
		return malformed("copy of %d bytes leaves the source of %d bytes", n, o.size)
	}
	return readFull(o.image, b, at)
}

// hint returns up to n bytes from a place of the image or of the pool, as many as there are.
func (o *origin) hint(b []byte, at int64, n int) ([]byte, error) {
	end := o.size
	if at >= end {
		end += int64(len(o.pool))
	}
	if at < 0 || at >= end {
		return nil, nil
	}
	b = b[:min(int64(n), int64(len(b)), end-at)]
	return b, o.read(b, at)
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
