// SPDX-License-Identifier: Apache-2.0

package ubootmodel

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/updaterd/updaterd/bootctl/uboot"
)

// ErrCut: the power was cut. Until [Memory.PowerOn], nothing works any more.
var ErrCut = errors.New("power cut")

// Memory is a [uboot.Store] in memory whose power can be cut in the middle of a write.
type Memory struct {
	// Tear, if not nil, is asked before each write, with the number of the write
	// since the start (0, 1, …), the copy, and its old and new bytes. It returns
	// what the medium will hold, and whether the power is cut there. It may keep
	// or change neither slice.
	Tear func(n, copy int, old, new []byte) (medium []byte, cut bool)
	// Medium is what the store says of itself.
	Medium uboot.Traits

	lock   sync.RWMutex // the lock file
	size   int
	copies [][]byte
	writes int
	off    bool
}

// NewMemory is a blank medium with room for 1 or 2 copies of size bytes.
func NewMemory(size, copies int) *Memory {
	m := &Memory{size: size}
	for range copies {
		m.copies = append(m.copies, bytes.Repeat([]byte{0xff}, size))
	}
	return m
}

// CutAt cuts the power in write n, counted from now on, after the first bytes bytes of it.
func (m *Memory) CutAt(n, bytes int) {
	at := m.writes + n
	m.Tear = func(n, _ int, old, new []byte) ([]byte, bool) {
		if n != at {
			return new, false
		}
		return append(append([]byte{}, new[:min(bytes, len(new))]...), old[min(bytes, len(old)):]...), true
	}
}

// PowerOn ends a power cut and takes Tear away.
func (m *Memory) PowerOn() { m.off, m.Tear = false, nil }

// Writes is the number of writes so far, a torn one included.
func (m *Memory) Writes() int { return m.writes }

// Raw is copy i as it lies on the medium; it may be changed.
func (m *Memory) Raw(i int) []byte { return m.copies[i] }

// Geometry implements [uboot.Store].
func (m *Memory) Geometry() (size, copies int) { return m.size, len(m.copies) }

// Traits implements [uboot.Store].
func (m *Memory) Traits() uboot.Traits { return m.Medium }

// Obsolete implements [uboot.Store]. It counts as a write, of one byte.
func (m *Memory) Obsolete(i int) error {
	image := bytes.Clone(m.copies[i])
	image[4] = 0
	return m.WriteCopy(i, image)
}

// Where implements [uboot.Store].
func (m *Memory) Where(i int) string { return fmt.Sprintf("copy %d", i+1) }

// Lock implements [uboot.Store].
func (m *Memory) Lock(write bool) (func(), error) {
	if write {
		m.lock.Lock()
		return m.lock.Unlock, nil
	}
	m.lock.RLock()
	return m.lock.RUnlock, nil
}

// ReadCopy implements [uboot.Store].
func (m *Memory) ReadCopy(i int) ([]byte, error) {
	if m.off {
		return nil, ErrCut
	}
	return bytes.Clone(m.copies[i]), nil
}

// WriteCopy implements [uboot.Store].
func (m *Memory) WriteCopy(i int, image []byte) error {
	switch {
	case m.off:
		return ErrCut
	case len(image) != m.size:
		return fmt.Errorf("write %s: %d bytes instead of %d", m.Where(i), len(image), m.size)
	}
	medium := image
	if m.Tear != nil {
		medium, m.off = m.Tear(m.writes, i, m.copies[i], image)
	}
	m.copies[i] = bytes.Clone(medium)
	m.writes++
	if m.off {
		return ErrCut
	}
	return nil
}

var _ uboot.Store = (*Memory)(nil)
