// SPDX-License-Identifier: Apache-2.0

//go:build unix

package delta

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// mapFile maps the first size bytes of src if it is a regular file of at
// least that length; otherwise ok is false and the caller reads src instead.
func mapFile(src io.ReaderAt, size int) (b []byte, ok bool) {
	f, isFile := src.(*os.File)
	if !isFile || size == 0 {
		return nil, false
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() < int64(size) {
		return nil, false
	}
	b, err = unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	return b, err == nil
}

func unmapFile(b []byte) error { return unix.Munmap(b) }

func forgetPages(b []byte) error { return unix.Madvise(b, unix.MADV_DONTNEED) }
