// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// An FS is a file system as far as durable writes need it. [OS] is the
// operating system's; a test's remembers every step, and what a power cut would
// leave of them.
type FS interface {
	// Open opens a file for reading.
	Open(path string) (File, error)
	// Create opens a file for writing, empty: a new one, or the one that is there.
	Create(path string, perm fs.FileMode) (File, error)
	Mkdir(path string, perm fs.FileMode) error
	ReadDir(path string) ([]fs.DirEntry, error)
	Stat(path string) (fs.FileInfo, error)
	Rename(from, to string) error
	// RemoveAll removes a file or a directory with all that is in it; it is no
	// error if there is none.
	RemoveAll(path string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(path string) error
	// Free is how many bytes the file system of a directory has for us.
	Free(path string) (int64, error)
}

// A File is an open file.
type File interface {
	io.ReadWriteCloser
	io.ReaderAt
	// Sync makes the content durable, but not the name.
	Sync() error
	Stat() (fs.FileInfo, error)
}

// OS is the operating system's file system.
type OS struct{}

var _ FS = OS{}

// Open implements [FS].
func (OS) Open(path string) (File, error) { return opened(os.Open(path)) }

// Create implements [FS].
func (OS) Create(path string, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, perm)
	if err == nil {
		// For a file that was there, and past the umask.
		if err = f.Chmod(perm); err != nil {
			f.Close()
		}
	}
	return opened(f, err)
}

// opened keeps a nil *os.File from becoming a File that is not nil.
func opened(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Mkdir implements [FS].
func (OS) Mkdir(path string, perm fs.FileMode) error { return os.Mkdir(path, perm) }

// ReadDir implements [FS].
func (OS) ReadDir(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }

// Stat implements [FS].
func (OS) Stat(path string) (fs.FileInfo, error) { return os.Stat(path) }

// Rename implements [FS].
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// RemoveAll implements [FS].
func (OS) RemoveAll(path string) error { return os.RemoveAll(path) }

// SyncDir implements [FS].
func (OS) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Free implements [FS].
func (OS) Free(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
