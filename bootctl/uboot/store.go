// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Store keeps the copies of an environment. It knows nothing of what is in them.
type Store interface {
	// Geometry tells the size of a copy in bytes and the number of copies, 1 or 2.
	Geometry() (size, copies int)
	// Lock keeps others out, U-Boot's tools among them, until release is called.
	// Who only reads may share the lock, and goes without where it has no right
	// to it or where somebody keeps it.
	Lock(write bool) (release func(), err error)
	// ReadCopy reads copy i from the medium, not from a cache. ErrUnreadable
	// means that the medium fails there.
	ReadCopy(i int) ([]byte, error)
	// WriteCopy writes copy i in one write and returns once it is on the medium.
	WriteCopy(i int, image []byte) error
	// Where names copy i for people.
	Where(i int) string
}

// ErrUnreadable: the medium cannot read a copy. The other copy may still be good.
var ErrUnreadable = errors.New("medium error")

// sector is the unit in which disks write. Two copies must not share one.
const sector = 512

// disk is what a diskStore needs of an open file or block device.
type disk interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync returns once what was written is on the medium.
	Sync() error
	// Forget drops what caches hold of n bytes at offset.
	Forget(offset, n int64) error
	// Length is the size of the file or block device.
	Length() (int64, error)
	// Info tells what was opened.
	Info() (os.FileInfo, error)
}

// diskStore is a Store on a regular file or a block device.
type diskStore struct {
	locations []Location // offsets counted from the start
	lock      string
	open      func(path string, flags int) (disk, error)
}

// OpenStore finds the copies that config names and checks that they are where
// they can be. lockFile is DefaultLockFile unless given.
func OpenStore(config Config, lockFile string) (Store, error) {
	return openStore(config, lockFile, openDisk)
}

func openStore(config Config, lockFile string, open func(string, int) (disk, error)) (Store, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	if lockFile == "" {
		lockFile = DefaultLockFile
	}
	s := &diskStore{lock: lockFile, open: open}
	var infos []os.FileInfo
	for _, l := range config {
		info, err := s.check(&l)
		if err != nil {
			return nil, fmt.Errorf("open boot environment: %w", err)
		}
		s.locations = append(s.locations, l)
		infos = append(infos, info)
	}
	if len(infos) == 2 && sameDevice(infos[0], infos[1]) {
		a, b := s.locations[0], s.locations[1]
		if a.Offset > b.Offset {
			a, b = b, a
		}
		if (a.Offset+a.Size-1)/sector >= b.Offset/sector {
			return nil, fmt.Errorf("open boot environment: the two copies overlap or share a sector (%#x to %#x, and from %#x, of %s): correct fw_env.config", a.Offset, a.Offset+a.Size, b.Offset, b.Path)
		}
	}
	return s, nil
}

// check opens the device of a location and makes its offset count from the start.
func (s *diskStore) check(l *Location) (os.FileInfo, error) {
	d, err := s.open(l.Path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	info, err := d.Info()
	if err != nil {
		return nil, err
	}
	block := info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0
	switch {
	case info.Mode()&os.ModeCharDevice != 0:
		return nil, fmt.Errorf("%s is a character device (MTD or UBI), and only block devices and regular files are supported yet", l.Path)
	case !block && !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is neither a block device nor a regular file", l.Path)
	case !block && l.Offset < 0:
		return nil, fmt.Errorf("%s is a regular file, and an offset from the end (%d) is for block devices", l.Path, l.Offset)
	}
	length, err := d.Length()
	if err != nil {
		return nil, fmt.Errorf("find the size of %s: %w", l.Path, err)
	}
	offset := l.Offset
	if offset < 0 {
		offset += length
	}
	if offset < 0 || offset > length-l.Size {
		return nil, fmt.Errorf("the copy at offset %d with %#x bytes lies outside of %s, which has %d bytes: correct fw_env.config", l.Offset, l.Size, l.Path, length)
	}
	l.Offset = offset
	return info, nil
}

// sameDevice reports whether two names lead to one medium.
func sameDevice(a, b os.FileInfo) bool {
	if os.SameFile(a, b) {
		return true
	}
	x, ok1 := a.Sys().(*syscall.Stat_t)
	y, ok2 := b.Sys().(*syscall.Stat_t)
	return ok1 && ok2 && a.Mode()&os.ModeDevice != 0 && b.Mode()&os.ModeDevice != 0 && x.Rdev == y.Rdev
}

func (s *diskStore) Geometry() (size, copies int) {
	return int(s.locations[0].Size), len(s.locations)
}

func (s *diskStore) Where(i int) string {
	return fmt.Sprintf("%s at %#x", s.locations[i].Path, s.locations[i].Offset)
}

func (s *diskStore) Lock(write bool) (func(), error) { return lockFile(s.lock, write) }

// ReadCopy asks the medium itself (O_DIRECT) and, where the file system or the
// alignment forbids that, at least drops the page cache first.
func (s *diskStore) ReadCopy(i int) ([]byte, error) {
	image, err := s.read(i, unix.O_DIRECT)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		image, err = s.read(i, 0)
	}
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.EBADMSG) || errors.Is(err, unix.EUCLEAN) {
		err = fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.Where(i), err)
	}
	return image, nil
}

func (s *diskStore) read(i, flags int) ([]byte, error) {
	l := s.locations[i]
	d, err := s.open(l.Path, os.O_RDONLY|flags)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if flags&unix.O_DIRECT == 0 {
		if err := d.Forget(l.Offset, l.Size); err != nil {
			return nil, err
		}
	}
	image := alignedBuffer(int(l.Size))
	if _, err := d.ReadAt(image, l.Offset); err != nil {
		return nil, err
	}
	return image, nil
}

// alignedBuffer is memory that O_DIRECT accepts.
func alignedBuffer(n int) []byte {
	const align = 4096
	b := make([]byte, n+align)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (align - 1)
	return b[skip : skip+n : skip+n]
}

// WriteCopy overwrites in place, in one write. Redundancy is what makes a torn
// write harmless. A new file that takes the name would not do: U-Boot reads file
// systems without replaying their journal, so it may not see the new name yet.
func (s *diskStore) WriteCopy(i int, image []byte) error {
	if err := s.write(i, image); err != nil {
		return fmt.Errorf("write %s: %w", s.Where(i), err)
	}
	return nil
}

func (s *diskStore) write(i int, image []byte) (err error) {
	l := s.locations[i]
	if int64(len(image)) != l.Size {
		return fmt.Errorf("internal error: a copy of %d bytes where %d belong", len(image), l.Size)
	}
	d, err := s.open(l.Path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := d.Close(); err == nil {
			err = cerr
		}
	}()
	if _, err := d.WriteAt(image, l.Offset); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	return d.Forget(l.Offset, l.Size)
}
