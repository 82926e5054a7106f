// SPDX-License-Identifier: Apache-2.0

package parttable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl"
)

const (
	sector = 512
	// look is how much of a half must not be blank before it is selected.
	look = 128 << 10
)

// Halves are where the two copies lie, in bytes from the start of the disk. Both
// have Size bytes.
type Halves struct {
	A, B, Size int64
}

// at is the extent of a slot, in sectors.
func (h Halves) at(slot bootctl.Slot) extent {
	start := h.A
	if slot == bootctl.SlotB {
		start = h.B
	}
	return extent{uint64(start / sector), uint64(h.Size / sector)}
}

func (h Halves) validate() error {
	switch {
	case h.A%sector != 0 || h.B%sector != 0 || h.Size%sector != 0 || h.Size <= 0 || h.A < sector || h.B < sector:
		return fmt.Errorf("halves of %d bytes at %d and %d: whole sectors of %d bytes behind the first one are expected", h.Size, h.A, h.B, sector)
	case h.A < h.B+h.Size && h.B < h.A+h.Size:
		return fmt.Errorf("halves of %d bytes at %d and %d overlap", h.Size, h.A, h.B)
	}
	return nil
}

// extent is what an entry says, in sectors.
type extent struct{ start, count uint64 }

func (e extent) overlaps(f extent) bool {
	return e.start < f.start+f.count && f.start < e.start+e.count
}

// A table is a kind of partition table.
type table interface {
	// entry reads where the entry says that the bootloader is, and what is not for
	// the halves: the table itself, and the other partitions.
	entry(d disk, number int) (now extent, taken []extent, err error)
	// move changes that.
	move(d disk, number int, to extent) error
}

// A disk is what a table needs of an open disk.
type disk interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns once what was written is on the medium, and no longer cached.
	Sync() error
	Size() (int64, error)
	Close() error
}

// A Switch is [bootctl.Switch] on an entry of a partition table.
type Switch struct {
	path   string
	number int
	halves Halves
	table  table
	open   func(path string, write bool) (disk, error)
	// kernel reads its command line, if the table depends on it.
	kernel func() ([]byte, error)
}

var _ bootctl.Switch = (*Switch)(nil)

// OpenMBR takes entry number 1 to 4 of the table in a disk's first sector.
func OpenMBR(path string, number int, halves Halves) (*Switch, error) {
	if number < 1 || number > 4 {
		return nil, fmt.Errorf("partition %d: an MBR has 1 to 4", number)
	}
	for _, end := range []int64{halves.A + halves.Size, halves.B + halves.Size} {
		if end/sector > 1<<32 {
			return nil, fmt.Errorf("a half ends at %d: beyond what an MBR can say", end)
		}
	}
	return newSwitch(path, number, halves, mbr{})
}

// OpenGPT takes an entry, counted from 1, of a GUID partition table.
func OpenGPT(path string, number int, halves Halves) (*Switch, error) {
	if number < 1 || number > maxEntries {
		return nil, fmt.Errorf("partition %d: 1 to %d are expected", number, maxEntries)
	}
	s, err := newSwitch(path, number, halves, gpt{})
	if err != nil {
		return nil, err
	}
	s.kernel = func() ([]byte, error) { return os.ReadFile("/proc/cmdline") }
	return s, nil
}

func newSwitch(path string, number int, halves Halves, t table) (*Switch, error) {
	if err := halves.validate(); err != nil {
		return nil, err
	}
	return &Switch{path: path, number: number, halves: halves, table: t, open: openDisk}, nil
}

// Selected implements [bootctl.Switch].
func (s *Switch) Selected() (slot bootctl.Slot, err error) {
	err = s.with(false, func(d disk) error {
		slot, err = s.selected(d)
		return err
	})
	return slot, err
}

// Select implements [bootctl.Switch].
func (s *Switch) Select(slot bootctl.Slot) error {
	if !slot.Valid() {
		return fmt.Errorf("%.40q is not a slot: use a or b", slot)
	}
	return s.with(true, func(d disk) error {
		// An entry that leads elsewhere is not one that may be changed.
		if now, err := s.selected(d); err != nil {
			return err
		} else if now != slot {
			to := s.halves.at(slot)
			empty, err := bootctl.Blank(io.NewSectionReader(d, int64(to.start)*sector, s.halves.Size), min(s.halves.Size, look))
			if err != nil {
				return err
			}
			if empty {
				return fmt.Errorf("the half at sector %d is empty: nothing would be started", to.start)
			}
		}
		if err := s.table.move(d, s.number, s.halves.at(slot)); err != nil {
			return err
		}
		now, err := s.selected(d)
		if err == nil && now != slot {
			err = fmt.Errorf("%s.%d leads to the other half still: the medium is failing or write-protected", s.path, s.number)
		}
		return err
	})
}

func (s *Switch) selected(d disk) (bootctl.Slot, error) {
	e, taken, err := s.table.entry(d, s.number)
	if err != nil {
		return "", err
	}
	slots := []bootctl.Slot{bootctl.SlotA, bootctl.SlotB}
	for _, slot := range slots {
		for _, t := range taken {
			if half := s.halves.at(slot); half.overlaps(t) {
				return "", fmt.Errorf("half %s, %d sectors at %d, is also part of the table or of another partition, which has %d at %d: correct offset and size", slot, half.count, half.start, t.count, t.start)
			}
		}
	}
	for _, slot := range slots {
		if e == s.halves.at(slot) {
			return slot, nil
		}
	}
	return "", fmt.Errorf("partition %d begins at sector %d and has %d: neither half of the region is that; correct offset, size and partition", s.number, e.start, e.count)
}

// checkKernel refuses one that would find no partition at all where a power cut
// has torn the first table: without "gpt" it does not look at the second.
func (s *Switch) checkKernel() error {
	if s.kernel == nil {
		return nil
	}
	line, err := s.kernel()
	if err == nil && !slices.Contains(strings.Fields(string(line)), "gpt") {
		err = errors.New("the kernel does not look at the second table if a power cut tears the first: let the boot command add gpt to its command line")
	}
	return err
}

func (s *Switch) with(write bool, do func(disk) error) error {
	if err := s.checkKernel(); err != nil {
		return fmt.Errorf("partition table of %s: %w", s.path, err)
	}
	d, err := s.open(s.path, write)
	if err != nil {
		return fmt.Errorf("open partition table: %w", err)
	}
	err = do(d)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("partition table of %s: %w", s.path, err)
	}
	return nil
}

func read(d disk, at uint64, n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := d.ReadAt(b, int64(at)*sector)
	return b, err
}

// write is one write, which is then on the medium and compared.
func write(d disk, at uint64, b []byte) error {
	if _, err := d.WriteAt(b, int64(at)*sector); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	back, err := read(d, at, len(b))
	if err == nil && !bytes.Equal(back, b) {
		err = fmt.Errorf("sector %d holds something else than was written and synced: the medium is failing or write-protected", at)
	}
	return err
}

// osDisk is a disk of the operating system.
type osDisk struct{ *os.File }

func openDisk(path string, write bool) (disk, error) {
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	// The kernel writes whole pages, and a partition that begins or ends within one
	// has a cache of its own: what the disk's still has of it may be old.
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		f.Close()
		return nil, os.NewSyscallError("fadvise", err)
	}
	return osDisk{f}, nil
}

func (d osDisk) Size() (int64, error) { return d.Seek(0, io.SeekEnd) }

func (d osDisk) Sync() error {
	if err := d.File.Sync(); err != nil {
		return err
	}
	return os.NewSyscallError("fadvise", unix.Fadvise(int(d.Fd()), 0, 0, unix.FADV_DONTNEED))
}
