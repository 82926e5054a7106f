// SPDX-License-Identifier: Apache-2.0

package mtd

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Kind is what a flash is made of. The numbers are the kernel's (MTD_NORFLASH …).
type Kind uint8

// The kinds that this package knows by name.
const (
	NOR  Kind = unix.MTD_NORFLASH
	NAND Kind = unix.MTD_NANDFLASH // single-level cells
)

func (k Kind) String() string {
	switch k {
	case NOR:
		return "NOR flash"
	case NAND:
		return "NAND flash"
	case unix.MTD_MLCNANDFLASH:
		return "NAND flash with several bits in a cell"
	case unix.MTD_DATAFLASH:
		return "DataFlash"
	}
	return fmt.Sprintf("an MTD of type %d", uint8(k))
}

// Info is what the kernel says of a device.
type Info struct {
	Kind      Kind
	Size      int64
	EraseSize int64 // of one erase block
	WriteSize int64 // writes are multiples of it: 1 on NOR, a page on NAND
	// Bits tells that single bits may be cleared in what was written before.
	Bits bool
}

// A Device is an open MTD device.
type Device struct {
	f    *os.File
	info Info
}

// ErrNotMTD: the device node leads to something else.
var ErrNotMTD = errors.New("not an MTD device")

// Open opens an MTD character device. flags are those of [os.OpenFile].
func Open(path string, flags int) (*Device, error) {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	d := &Device{f: f}
	var raw struct {
		kind                              uint8
		flags                             uint32
		size, eraseSize, writeSize, extra uint32
		padding                           uint64
	}
	if err := d.ioctl("MEMGETINFO", unix.MEMGETINFO, unsafe.Pointer(&raw)); err != nil {
		f.Close()
		if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("%s: %w", path, ErrNotMTD)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// raw.size wraps at 4 GiB.
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, err
	}
	d.info = Info{Kind: Kind(raw.kind), Size: size, EraseSize: int64(raw.eraseSize), WriteSize: int64(raw.writeSize),
		Bits: raw.flags&unix.MTD_BIT_WRITEABLE != 0}
	if d.info.EraseSize == 0 || d.info.WriteSize == 0 {
		f.Close()
		return nil, fmt.Errorf("%s: the kernel reports no erase block or no write size", path)
	}
	return d, nil
}

// Info is what the kernel said of the device when it was opened.
func (d *Device) Info() Info { return d.info }

// ReadAt implements [io.ReaderAt]. On NAND it does not report errors that the
// chip's checksums could not correct: the kernel hands out the data all the same.
func (d *Device) ReadAt(p []byte, offset int64) (int, error) { return d.f.ReadAt(p, offset) }

// WriteAt implements [io.WriterAt]. It returns when the flash is programmed: MTD
// has no cache.
func (d *Device) WriteAt(p []byte, offset int64) (int, error) { return d.f.WriteAt(p, offset) }

// Close closes the device.
func (d *Device) Close() error { return d.f.Close() }

// span is the kernel's struct erase_info_user.
type span struct{ start, length uint32 }

func spanOf(offset, length int64) (*span, error) {
	if offset < 0 || length < 0 || offset+length > math.MaxUint32 {
		return nil, fmt.Errorf("%#x bytes at %#x are beyond the first 4 GiB", length, offset)
	}
	return &span{uint32(offset), uint32(length)}, nil
}

// Erase sets all bits of whole erase blocks.
func (d *Device) Erase(offset, length int64) error {
	s, err := spanOf(offset, length)
	if err == nil {
		err = d.ioctl("MEMERASE", unix.MEMERASE, unsafe.Pointer(s))
	}
	if err != nil {
		return fmt.Errorf("erase block at %#x: %w", offset, err)
	}
	return nil
}

// Bad reports whether the erase block at offset is marked bad. NOR has no such mark.
func (d *Device) Bad(offset int64) (bool, error) {
	if d.info.Kind == NOR {
		return false, nil
	}
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), unix.MEMGETBADBLOCK, uintptr(unsafe.Pointer(&offset)))
		switch errno {
		case 0:
			return n != 0, nil
		case unix.EOPNOTSUPP:
			return false, nil
		case unix.EINTR:
			continue
		}
		return false, fmt.Errorf("look for bad block at %#x: %w", offset, os.NewSyscallError("ioctl MEMGETBADBLOCK", errno))
	}
}

// Unlock makes blocks writable that the chip protects. restore protects them
// again, and does nothing if they were not protected before.
func (d *Device) Unlock(offset, length int64) (restore func() error, err error) {
	s, err := spanOf(offset, length)
	if err != nil {
		return nil, err
	}
	locked, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), unix.MEMISLOCKED, uintptr(unsafe.Pointer(s)))
	if errno != 0 || locked == 0 { // a chip without protection answers with an error
		return func() error { return nil }, nil
	}
	if err := d.ioctl("MEMUNLOCK", unix.MEMUNLOCK, unsafe.Pointer(s)); err != nil {
		return nil, fmt.Errorf("unlock block at %#x: %w", offset, err)
	}
	return func() error {
		if err := d.ioctl("MEMLOCK", unix.MEMLOCK, unsafe.Pointer(s)); err != nil {
			return fmt.Errorf("lock block at %#x again: %w", offset, err)
		}
		return nil
	}, nil
}

func (d *Device) ioctl(name string, request uint, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), uintptr(request), uintptr(arg))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return os.NewSyscallError("ioctl "+name, errno)
		}
	}
}
