// SPDX-License-Identifier: Apache-2.0

package medium

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/updaterd/updaterd/bootctl/durable"
)

// A Medium is a running device's disks and file system. It is safe for
// concurrent use.
type Medium struct {
	// Fault, if not nil, is asked before each step and each read; its error is
	// what the program gets, and the step is not made. Set it while nothing runs.
	Fault func(Op) error
	// Before, if not nil, is told each step before it is made.
	Before func(Op)

	mu    sync.Mutex
	start *State
	state *State
	log   []Op
}

var _ durable.FS = (*Medium)(nil)

// New starts on a state, which is not changed.
func New(s *State) *Medium { return &Medium{start: s.Clone(), state: s.Clone()} }

// Log is what was done so far.
func (m *Medium) Log() []Op {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.log)
}

// State is what programs see now.
func (m *Medium) State() *State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Clone()
}

// Note puts a mark into the log.
func (m *Medium) Note(note string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, Op{Kind: Mark, Note: note})
}

// Restart is a reset; orderly says that all was synced before.
func (m *Medium) Restart(orderly bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if orderly {
		m.log = append(m.log, Op{Kind: Reset, Note: "after a sync"})
		return
	}
	// What the page cache held is gone.
	r := NewReplay(m.start)
	for _, op := range m.log {
		r.Step(op)
	}
	m.state = r.durable.Clone()
	m.log = append(m.log, Op{Kind: Reset, Note: crash})
}

// step makes a step, unless it is to fail.
func (m *Medium) step(o Op) error {
	if m.Fault != nil {
		if err := m.Fault(o); err != nil {
			return &fs.PathError{Op: string(o.Kind), Path: o.Path, Err: err}
		}
	}
	if m.Before != nil {
		m.Before(o)
	}
	m.state.apply(o)
	m.log = append(m.log, o)
	return nil
}

// A Disk is an open block device.
type Disk struct {
	m    *Medium
	name string
}

// Disk opens a block device.
func (m *Medium) Disk(name string) (*Disk, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state.disks[name] == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &Disk{m, name}, nil
}

// ReadAt reads what is in the disk's cache or on the medium.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if d.m.Fault != nil {
		if err := d.m.Fault(Op{Kind: DiskRead, Path: d.name, Off: off}); err != nil {
			return 0, &fs.PathError{Op: "read", Path: d.name, Err: err}
		}
	}
	pages, done := d.m.state.disks[d.name], 0
	for done < len(p) {
		at := off + int64(done)
		if at >= int64(len(pages))*page {
			return done, io.EOF
		}
		done += copy(p[done:], pages[at/page].Data[at%page:])
	}
	return done, nil
}

// WriteAt writes into the disk's cache.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > d.Size() {
		return 0, &fs.PathError{Op: "write", Path: d.name, Err: syscall.ENOSPC}
	}
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if err := d.m.step(Op{Kind: DiskWrite, Path: d.name, Off: off, Data: slices.Clone(p)}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Sync flushes the disk's cache.
func (d *Disk) Sync() error {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	return d.m.step(Op{Kind: DiskSync, Path: d.name})
}

// Size is the length in bytes.
func (d *Disk) Size() int64 {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	return int64(len(d.m.state.disks[d.name])) * page
}

// Close closes it.
func (d *Disk) Close() error { return nil }

// Forget drops nothing: reads come from the disk.
func (d *Disk) Forget(offset, n int64) error { return nil }

// Length is Size.
func (d *Disk) Length() (int64, error) { return d.Size(), nil }

// Info tells that it is a block device.
func (d *Disk) Info() (fs.FileInfo, error) {
	return info{name: path.Base(d.name), mode: fs.ModeDevice | 0o600}, nil
}

// info describes a file, a directory or a disk.
type info struct {
	name string
	mode fs.FileMode
	size int64
}

func (i info) Name() string               { return i.name }
func (i info) Size() int64                { return i.size }
func (i info) Mode() fs.FileMode          { return i.mode }
func (i info) Type() fs.FileMode          { return i.mode.Type() }
func (i info) ModTime() time.Time         { return time.Time{} }
func (i info) IsDir() bool                { return i.mode.IsDir() }
func (i info) Sys() any                   { return nil }
func (i info) Info() (fs.FileInfo, error) { return i, nil }
