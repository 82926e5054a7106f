// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl/emmc"
)

// sector is the unit in which disks write. Two copies must not share one.
const sector = 512

// disk is what a diskPlace needs of an open file or block device.
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

// diskPlace is a copy in a regular file or on a block device.
type diskPlace struct {
	l        Location // its offset counts from the start
	open     func(path string, flags int) (disk, error)
	guard    emmc.Guard
	unit     int64  // of the medium, in which a write may damage what is beside it
	unitName string // what it is called
}

// findDisk checks a location in a regular file or on a block device.
func (sys system) findDisk(l Location, _ os.FileInfo) (*diskPlace, error) {
	d, err := sys.disk(l.Path, os.O_RDONLY)
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
	case !block && !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is neither a device nor a regular file", l.Path)
	case !block && l.Offset < 0:
		return nil, fmt.Errorf("%s is a regular file, and an offset from the end (%d) is for block devices", l.Path, l.Offset)
	case block && unix.Major(deviceNumber(info)) == mtdBlockMajor:
		return nil, fmt.Errorf("%s hides the erase blocks, bad blocks and flags of the flash behind it: name its character device, such as /dev/mtd0, as U-Boot's tools need it", l.Path)
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
	p := &diskPlace{l: l, open: sys.disk}
	if block {
		p.look(sys.sysfs, deviceNumber(info))
	}
	return p, nil
}

// mtdBlockMajor is the device number of /dev/mtdblock0 and its like.
const mtdBlockMajor = 31

// look finds out from sysfs what the medium is like. What it does not find stays unknown.
func (p *diskPlace) look(sysfs string, device uint64) {
	link, err := os.Readlink(filepath.Join(sysfs, "dev/block", numbers(device)))
	if err != nil {
		return
	}
	dir := filepath.Join(sysfs, "dev/block", link)
	p.guard = emmc.GuardOf(sysfs, device)
	whole := dir
	if readAttribute(filepath.Join(dir, "partition")) != "" {
		whole = filepath.Dir(dir)
	}
	bytes := func(name string) int64 {
		n, _ := strconv.ParseInt(readAttribute(filepath.Join(whole, name)), 10, 64)
		return n
	}
	// What a card calls its preferred erase size is its allocation unit; that of
	// an eMMC is a guess of the kernel by the capacity, and its erase size is real.
	switch readAttribute(filepath.Join(whole, "device/type")) {
	case "SD":
		p.unit, p.unitName = bytes("device/preferred_erase_size"), "allocation unit of the SD card"
	case "MMC":
		p.unit, p.unitName = bytes("device/erase_size"), "erase group of the eMMC"
	}
	if p.unit <= sector {
		p.unit, p.unitName = bytes("queue/physical_block_size"), "physical block of the disk"
	}
}

// numbers are a device's major and minor number, as sysfs writes them.
func numbers(device uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(device), unix.Minor(device))
}

// readAttribute is the content of a file in sysfs, or "" if there is none.
func readAttribute(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (p *diskPlace) String() string { return fmt.Sprintf("%s at %#x", p.l.Path, p.l.Offset) }

// clash refuses copies that share a sector, because a write could then destroy
// both. What shares only a unit in which a card erases is a warning: a good
// card or eMMC keeps what is beside a write, and its unit is often larger than
// the room in front of the first partition.
func (p *diskPlace) clash(other place) (string, error) {
	q, ok := other.(*diskPlace)
	if !ok {
		return "", nil
	}
	a, b := p.l, q.l
	if a.Offset > b.Offset {
		a, b = b, a
	}
	last := a.Offset + a.Size - 1
	if last/sector >= b.Offset/sector {
		return "", fmt.Errorf("the two copies overlap or share a sector (%#x to %#x, and from %#x, of %s)", a.Offset, last+1, b.Offset, b.Path)
	}
	if p.unit > 0 && last/p.unit >= b.Offset/p.unit {
		return fmt.Sprintf("both copies lie in one %s (%d KiB, from %#x): a device that does not keep what is beside a write loses both in a power cut; "+
			"to be safe with any, put them that far apart", p.unitName, p.unit>>10, b.Offset-b.Offset%p.unit), nil
	}
	return "", nil
}

// read asks the medium itself (O_DIRECT) and, where the file system or the
// alignment forbids that, at least drops the page cache first.
func (p *diskPlace) read() ([]byte, error) {
	image, err := p.readWith(unix.O_DIRECT)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		image, err = p.readWith(0)
	}
	return image, err
}

func (p *diskPlace) readWith(flags int) ([]byte, error) {
	d, err := p.open(p.l.Path, os.O_RDONLY|flags)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if flags&unix.O_DIRECT == 0 {
		if err := d.Forget(p.l.Offset, p.l.Size); err != nil {
			return nil, err
		}
	}
	image := alignedBuffer(int(p.l.Size))
	if _, err := d.ReadAt(image, p.l.Offset); err != nil {
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

// write overwrites in place, in one write. Redundancy is what makes a torn
// write harmless. A new file that takes the name would not do: U-Boot reads file
// systems without replaying their journal, so it may not see the new name yet.
func (p *diskPlace) write(image []byte) (err error) {
	restore, err := p.guard.Lift()
	if err != nil {
		return err
	}
	defer func() {
		if rerr := restore(); err == nil {
			err = rerr
		}
	}()
	d, err := p.open(p.l.Path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := d.Close(); err == nil {
			err = cerr
		}
	}()
	if _, err := d.WriteAt(image, p.l.Offset); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	return d.Forget(p.l.Offset, p.l.Size)
}
