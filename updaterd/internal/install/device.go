// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl/emmc"
)

// A device is what a slot's content is on.
type device interface {
	// ReadAt reads from the medium, not from the page cache.
	io.ReaderAt
	// WriteAt writes; Sync returns when all that was written is on the medium.
	io.WriterAt
	Sync() error
	Size() int64
	Close() error
}

const (
	// alignment of direct reads; a multiple of every sector size in use.
	alignment = 4096
	bounce    = 256 << 10
)

// A slotFile is a device: a block device or a regular file.
type slotFile struct {
	f      *os.File
	direct *os.File // nil if the file system has no direct reads
	ram    bool     // there is no medium behind the page cache
	size   int64
	buf    []byte // aligned

	guard   emmc.Guard
	restore func() error // the guard; nil until it was lifted
}

// openDevice opens a slot's device. For writing, a block device is claimed: it
// must not be mounted or in any other use, and cannot be as long as it is open.
func openDevice(path string, write bool) (device, error) {
	d, err := openSlotFile(path, write)
	if errors.Is(err, syscall.EBUSY) {
		return nil, fmt.Errorf("%s is mounted or in use; a slot is written only while nothing uses it: %w", path, err)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

func openSlotFile(path string, write bool) (*slotFile, error) {
	return openFileWith(path, write, unix.O_EXCL)
}

// openShared opens a disk of which others use other parts.
func openShared(path string, write bool) (*slotFile, error) { return openFileWith(path, write, 0) }

func openFileWith(path string, write bool, exclusive int) (*slotFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
	case mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0:
		if write {
			flags |= exclusive
		}
	default:
		return nil, fmt.Errorf("%s is neither a block device nor a regular file", path)
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	d := &slotFile{f: f, buf: aligned(bounce)}
	// Not Stat: a block device has its size only here.
	if d.size, err = f.Seek(0, io.SeekEnd); err != nil {
		f.Close()
		return nil, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); write && ok && !info.Mode().IsRegular() {
		d.guard = emmc.GuardOf("/sys", uint64(st.Rdev))
	}
	d.openDirect(path, info)
	return d, nil
}

func (d *slotFile) openDirect(path string, was os.FileInfo) {
	var st unix.Statfs_t
	if was.Mode().IsRegular() && unix.Fstatfs(int(d.f.Fd()), &st) == nil {
		magic := uint32(st.Type) // signed and of either width, by architecture
		d.ram = magic == unix.TMPFS_MAGIC || magic == unix.RAMFS_MAGIC
	}
	direct, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return
	}
	// The name may point to something else by now.
	if info, err := direct.Stat(); err != nil || !same(info, was) {
		direct.Close()
		return
	}
	if _, err := unix.Pread(int(direct.Fd()), d.buf[:alignment], 0); err == unix.EINVAL {
		direct.Close()
		return
	}
	d.direct = direct
}

func (d *slotFile) Size() int64 { return d.size }

func (d *slotFile) Close() error {
	if d.direct != nil {
		d.direct.Close()
	}
	err := d.f.Close()
	if d.restore != nil { // not before: the kernel may have something left to write
		_ = d.restore() // the content does not depend on it
	}
	return err
}

func (d *slotFile) WriteAt(p []byte, off int64) (int, error) {
	// A regular file would grow without a complaint.
	if off < 0 || int64(len(p)) > d.size-off {
		return 0, fmt.Errorf("write %d bytes at %d: beyond the end at %d", len(p), off, d.size)
	}
	if d.restore == nil { // only now: a device that is only inspected stays as it was
		restore, err := d.guard.Lift()
		if err != nil {
			return 0, err
		}
		d.restore = restore
	}
	n, err := d.f.WriteAt(p, off)
	if n > 0 {
		// Only a hint: the medium begins now, so that Sync has less to wait for.
		_ = unix.SyncFileRange(int(d.f.Fd()), off, int64(n), unix.SYNC_FILE_RANGE_WRITE)
	}
	return n, err
}

// Sync makes writes durable; for a block device that includes a flush of its cache.
func (d *slotFile) Sync() error { return d.f.Sync() }

// ReadAt needs no aligned buffer or offset: what is read is rounded out. What is
// aligned is read where it belongs, in one piece.
func (d *slotFile) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		rest := p[done:]
		at := off + int64(done)
		start := at &^ (alignment - 1)
		skip := int(at - start)
		whole := len(rest) &^ (alignment - 1)
		var n, want int
		var err error
		if skip == 0 && whole > 0 && isAligned(rest) {
			want = whole
			n, err = d.read(rest[:whole], at)
			done += n
		} else {
			want = min(len(d.buf), (skip+len(rest)+alignment-1)&^(alignment-1))
			n, err = d.read(d.buf[:want], start)
			if n > skip {
				done += copy(rest, d.buf[skip:n])
			}
		}
		if done == len(p) {
			break
		}
		if err != nil {
			return done, err
		}
		if n < want {
			return done, io.ErrUnexpectedEOF
		}
	}
	return done, nil
}

func (d *slotFile) read(b []byte, off int64) (int, error) {
	if d.direct != nil {
		return d.direct.ReadAt(b, off)
	}
	if err := d.drop(off, int64(len(b))); err != nil {
		return 0, err
	}
	return d.f.ReadAt(b, off)
}

// drop takes a range out of the page cache and makes sure that it is gone, so
// that the next read comes from the medium.
func (d *slotFile) drop(off, n int64) error {
	if d.ram || off >= d.size {
		return nil
	}
	if err := d.f.Sync(); err != nil {
		return err
	}
	fd := int(d.f.Fd())
	for range 3 {
		// The whole file: the cache may hold it in pieces that are larger than the
		// range, and those are not dropped in part.
		if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
			return &fs.PathError{Op: "fadvise", Path: d.f.Name(), Err: err}
		}
		cached, err := resident(fd, off, min(n, d.size-off))
		if err != nil {
			return &fs.PathError{Op: "mincore", Path: d.f.Name(), Err: err}
		}
		if !cached {
			return nil
		}
	}
	return fmt.Errorf("%s: bytes from %d stay in the page cache, so they cannot be read back from the medium", d.f.Name(), off)
}

// resident reports whether a page of the range is in the page cache.
func resident(fd int, off, n int64) (bool, error) {
	pageSize := int64(os.Getpagesize())
	start := off &^ (pageSize - 1)
	m, err := unix.Mmap(fd, start, int(off+n-start), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return false, err
	}
	defer unix.Munmap(m)
	pages := make([]byte, (int64(len(m))+pageSize-1)/pageSize)
	// golang.org/x/sys has no mincore; m and pages outlive the call.
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&pages[0])))
	if errno != 0 {
		return false, errno
	}
	for _, p := range pages {
		if p&1 != 0 {
			return true, nil
		}
	}
	return false, nil
}

// aligned makes a buffer for direct reads.
func aligned(n int) []byte {
	b := make([]byte, n+alignment)
	skip := -int(address(b)) & (alignment - 1)
	return b[skip : skip+n : skip+n]
}

func isAligned(b []byte) bool { return address(b)&(alignment-1) == 0 }

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// sizeOf is the size of a block device or a file, mounted or not.
func sizeOf(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, io.SeekEnd)
}

// sameDevice is Same of [Devices].
func sameDevice(a, b string) (bool, error) {
	x, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	y, err := os.Stat(b)
	if err != nil {
		return false, nil
	}
	return same(x, y), nil
}

func same(x, y os.FileInfo) bool {
	if os.SameFile(x, y) {
		return true
	}
	// Two nodes of one device are different files.
	sx, ok := x.Sys().(*syscall.Stat_t)
	sy, ok2 := y.Sys().(*syscall.Stat_t)
	isBlock := func(m fs.FileMode) bool { return m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0 }
	return ok && ok2 && isBlock(x.Mode()) && isBlock(y.Mode()) && sx.Rdev == sy.Rdev
}
