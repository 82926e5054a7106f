// SPDX-License-Identifier: Apache-2.0

// Package mtdtest is raw flash in memory that obeys the rules of the real one,
// for tests of what is stored there: an erase sets a block, a write only clears
// bits, a page of NAND is written once, bad blocks take nothing, and the power
// can be cut in the middle of each.
//
// What a cut leaves is what is left of the operation's own block or bytes:
// whole bytes of a write in their order, a block that is erased in part.
package mtdtest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/updaterd/updaterd/bootctl/mtd"
)

// ErrCut: the power was cut. Until [Flash.PowerOn] nothing works any more.
var ErrCut = errors.New("power cut")

// Flash is a chip. Its methods are those of an open [mtd.Device].
type Flash struct {
	// BadBlocks are the offsets of blocks that are marked bad.
	BadBlocks []int64
	// Fail, if not nil, is asked before each operation and may refuse it.
	Fail func(operation string) error
	// Log has a line for each operation that changes something.
	Log []string
	// Protected tells that the chip's blocks are locked.
	Protected bool

	info    mtd.Info
	bytes   []byte
	written map[int64]bool // pages of NAND that were written since they were erased
	steps   int            // bytes written and parts of blocks erased
	cut     int            // at which step the power is cut; -1: never
	off     bool
}

// New is an erased chip.
func New(info mtd.Info) *Flash {
	f := &Flash{info: info, bytes: make([]byte, info.Size), written: map[int64]bool{}, cut: -1}
	for i := range f.bytes {
		f.bytes[i] = 0xff
	}
	return f
}

// eraseParts is in how many steps a block is erased.
const eraseParts = 4

// CutAfter cuts the power after n more steps: a byte written is one step, and a
// quarter of a block erased is one.
func (f *Flash) CutAfter(n int) { f.cut = f.steps + n }

// PowerOn ends a power cut.
func (f *Flash) PowerOn() { f.off, f.cut = false, -1 }

// Steps is how many steps were made so far.
func (f *Flash) Steps() int { return f.steps }

// Raw is what the chip holds; it may be changed.
func (f *Flash) Raw() []byte { return f.bytes }

// Clone is a chip that holds the same.
func (f *Flash) Clone() *Flash {
	c := New(f.info)
	copy(c.bytes, f.bytes)
	for page := range f.written {
		c.written[page] = true
	}
	c.BadBlocks, c.Protected = slices.Clone(f.BadBlocks), f.Protected
	return c
}

// Info describes the chip.
func (f *Flash) Info() mtd.Info { return f.info }

// Close does nothing: a chip can be opened again.
func (f *Flash) Close() error { return nil }

func (f *Flash) begin(changes bool, format string, args ...any) error {
	if f.off {
		return ErrCut
	}
	operation := fmt.Sprintf(format, args...)
	if changes {
		f.Log = append(f.Log, operation)
	}
	if f.Fail != nil {
		return f.Fail(operation)
	}
	return nil
}

// step makes one step, unless the power is cut there.
func (f *Flash) step() bool {
	if f.steps == f.cut {
		f.off = true
		return false
	}
	f.steps++
	return true
}

// ReadAt implements [io.ReaderAt].
func (f *Flash) ReadAt(p []byte, offset int64) (int, error) {
	if err := f.begin(false, "read %#x bytes at %#x", len(p), offset); err != nil {
		return 0, err
	}
	if offset < 0 || offset+int64(len(p)) > f.info.Size {
		return 0, fmt.Errorf("read beyond the chip at %#x", offset)
	}
	return copy(p, f.bytes[offset:]), nil
}

// WriteAt implements [io.WriterAt].
func (f *Flash) WriteAt(p []byte, offset int64) (int, error) {
	if err := f.begin(true, "write %#x bytes at %#x", len(p), offset); err != nil {
		return 0, err
	}
	page := f.info.WriteSize
	switch bad, _ := f.Bad(offset); {
	case f.Protected:
		return 0, errors.New("write to a locked block")
	case offset < 0 || offset+int64(len(p)) > f.info.Size:
		return 0, fmt.Errorf("write beyond the chip at %#x", offset)
	case offset%page != 0 || int64(len(p))%page != 0:
		return 0, fmt.Errorf("write of %#x bytes at %#x is not in pages of %#x", len(p), offset, page)
	case bad:
		return 0, fmt.Errorf("write to the bad block at %#x", offset)
	}
	for i, b := range p {
		at := offset + int64(i)
		if f.info.Kind == mtd.NAND && at%page == 0 {
			if f.written[at] {
				return i, fmt.Errorf("page at %#x is written twice without an erase", at)
			}
			f.written[at] = true
		}
		if !f.step() {
			return i, ErrCut
		}
		f.bytes[at] &= b
	}
	return len(p), nil
}

// Erase is that of [mtd.Device].
func (f *Flash) Erase(offset, length int64) error {
	if err := f.begin(true, "erase %#x bytes at %#x", length, offset); err != nil {
		return err
	}
	size := f.info.EraseSize
	if f.Protected {
		return errors.New("erase a locked block")
	}
	if offset%size != 0 || length%size != 0 || offset < 0 || offset+length > f.info.Size {
		return fmt.Errorf("erase of %#x bytes at %#x is not in blocks of %#x", length, offset, size)
	}
	for at := offset; at < offset+length; at += size / eraseParts {
		if bad, _ := f.Bad(at); bad {
			return fmt.Errorf("erase the bad block at %#x", at)
		}
		if !f.step() {
			return ErrCut
		}
		for i := at; i < at+size/eraseParts; i++ {
			f.bytes[i] = 0xff
			delete(f.written, i)
		}
	}
	return nil
}

// Bad is that of [mtd.Device].
func (f *Flash) Bad(offset int64) (bool, error) {
	return slices.Contains(f.BadBlocks, offset-offset%f.info.EraseSize), nil
}

// Unlock is that of [mtd.Device].
func (f *Flash) Unlock(offset, length int64) (func() error, error) {
	if !f.Protected {
		return func() error { return nil }, nil
	}
	if err := f.begin(true, "unlock"); err != nil {
		return nil, err
	}
	f.Protected = false
	return func() error {
		f.Protected = true
		return f.begin(true, "lock")
	}, nil
}
