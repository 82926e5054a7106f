// SPDX-License-Identifier: Apache-2.0

package medium

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"syscall"

	"github.com/updaterd/updaterd/bootctl/durable"
)

// free is what is left on the file system, as far as it tells.
const free = 1 << 30

// A file is an open file.
type file struct {
	*bytes.Reader
	m    *Medium
	path string
	node int
}

// Open implements [durable.FS].
func (m *Medium) Open(path string) (durable.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Fault != nil {
		if err := m.Fault(Op{Kind: Read, Path: path}); err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
	data, ok := m.state.File(path)
	if !ok {
		return nil, missing("open", path)
	}
	return &file{bytes.NewReader(data), m, path, m.state.find(path)}, nil
}

func missing(op, path string) error {
	return &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist}
}

// Create implements [durable.FS].
func (m *Medium) Create(name string, _ fs.FileMode) (durable.File, error) {
	f, err := m.Append(name)
	if err != nil {
		return nil, err
	}
	return f, f.Truncate(0)
}

// A Writer is a file that is open for writing.
type Writer struct{ file }

// Append opens a file for writing at its end; it makes one if there is none.
func (m *Medium) Append(name string) (*Writer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := m.state.find(name)
	if id == 0 {
		dir := m.state.find(path.Dir(name))
		if dir == 0 {
			return nil, missing("create", name)
		}
		id = m.state.next
		if err := m.step(Op{Kind: Create, Path: name, dir: dir, node: id}); err != nil {
			return nil, err
		}
	}
	if m.state.nodes[id].entries != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.EISDIR}
	}
	return &Writer{file{bytes.NewReader(nil), m, name, id}}, nil
}

// Truncate shortens the file to n bytes.
func (w *Writer) Truncate(n int) error {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	data := w.m.state.nodes[w.node].data
	if n == len(data) {
		return nil
	}
	return w.m.step(Op{Kind: Write, Path: w.path, node: w.node, Data: data[:n:n]})
}

// Write appends.
func (w *Writer) Write(p []byte) (int, error) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	data := slices.Concat(w.m.state.nodes[w.node].data, p)
	if err := w.m.step(Op{Kind: Write, Path: w.path, node: w.node, Data: data}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Write fails: Open is for reading.
func (f *file) Write([]byte) (int, error) {
	return 0, &fs.PathError{Op: "write", Path: f.path, Err: syscall.EBADF}
}

// Sync implements [durable.File].
func (f *file) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.m.step(Op{Kind: Sync, Path: f.path, node: f.node})
}

// Stat implements [durable.File].
func (f *file) Stat() (fs.FileInfo, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return info{name: path.Base(f.path), mode: 0o600, size: int64(len(f.m.state.nodes[f.node].data))}, nil
}

// Close implements [durable.File].
func (f *file) Close() error { return nil }

// Mkdir implements [durable.FS].
func (m *Medium) Mkdir(name string, _ fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir := m.state.find(path.Dir(name))
	switch {
	case dir == 0:
		return missing("mkdir", name)
	case m.state.find(name) != 0:
		return &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist}
	}
	return m.step(Op{Kind: Mkdir, Path: name, dir: dir, node: m.state.next})
}

// ReadDir implements [durable.FS].
func (m *Medium) ReadDir(name string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.state.nodes[m.state.find(name)]
	if n == nil || n.entries == nil {
		return nil, missing("read directory", name)
	}
	var list []fs.DirEntry
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		list = append(list, m.state.info(name, n.entries[name]))
	}
	return list, nil
}

func (s *State) info(name string, id int) info {
	if s.nodes[id].entries != nil {
		return info{name: name, mode: fs.ModeDir | 0o700}
	}
	return info{name: name, mode: 0o600, size: int64(len(s.nodes[id].data))}
}

// Stat implements [durable.FS].
func (m *Medium) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := m.state.find(name)
	if id == 0 {
		return nil, missing("stat", name)
	}
	return m.state.info(path.Base(name), id), nil
}

// Rename implements [durable.FS], within a directory.
func (m *Medium) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, dir := m.state.find(from), m.state.find(path.Dir(from))
	switch {
	case id == 0:
		return missing("rename", from)
	case path.Dir(from) != path.Dir(to):
		return &fs.PathError{Op: "rename", Path: to, Err: errors.ErrUnsupported}
	}
	return m.step(Op{Kind: Rename, Path: from, To: to, dir: dir, node: id})
}

// RemoveAll implements [durable.FS].
func (m *Medium) RemoveAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.remove(name)
}

func (m *Medium) remove(name string) error {
	id := m.state.find(name)
	if id == 0 {
		return nil
	}
	for _, child := range slices.Sorted(maps.Keys(m.state.nodes[id].entries)) {
		if err := m.remove(path.Join(name, child)); err != nil {
			return err
		}
	}
	return m.step(Op{Kind: Remove, Path: name, dir: m.state.find(path.Dir(name)), node: id})
}

// SyncDir implements [durable.FS].
func (m *Medium) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := m.state.find(name)
	if id == 0 {
		return missing("sync", name)
	}
	return m.step(Op{Kind: DirSync, Path: name, dir: id})
}

// Free implements [durable.FS].
func (m *Medium) Free(string) (int64, error) { return free, nil }
