// SPDX-License-Identifier: Apache-2.0

package fallbackcopy

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl"
)

// A medium is what a Switch needs of an open copy.
type medium interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync returns once what was written is on the medium, and no longer cached.
	Sync() error
}

// A Switch is [bootctl.Switch] on the copies a, which the ROM looks at first, and b.
type Switch struct {
	a, b   string // devices
	header *Header
	open   func(path string, write bool) (medium, error)
}

var _ bootctl.Switch = (*Switch)(nil)

// New makes a switch of the devices with the two copies; header keeps a's first sector.
func New(a, b string, header *Header) *Switch {
	return &Switch{a: a, b: b, header: header, open: openMedium}
}

// Selected implements [bootctl.Switch].
func (s *Switch) Selected() (bootctl.Slot, error) {
	a, err := s.sector(s.a)
	if err != nil {
		return "", err
	}
	if !Cleared(a) {
		return bootctl.SlotA, nil
	}
	b, err := s.sector(s.b)
	if err != nil {
		return "", err
	}
	if Cleared(b) {
		return "", fmt.Errorf("neither %s nor %s has a header: write a bootloader to one of them before the next start", s.a, s.b)
	}
	return bootctl.SlotB, nil
}

// Select implements [bootctl.Switch].
func (s *Switch) Select(slot bootctl.Slot) error {
	switch slot {
	case bootctl.SlotA:
		return s.restore()
	case bootctl.SlotB:
		return s.clear()
	}
	return fmt.Errorf("%.40q is not a slot: use a or b", slot)
}

// restore selects a.
func (s *Switch) restore() error {
	now, err := s.sector(s.a)
	if err != nil || !Cleared(now) {
		return err
	}
	sector, err := s.header.Load()
	switch {
	case err != nil:
		return err
	case sector == nil || Cleared(sector):
		return fmt.Errorf("the header of %s is not kept in %s: write that bootloader anew", s.a, s.header.Path)
	}
	// Commit point: a sector is there or it is not. The rest of a is whole, for the
	// header of a copy that is being written is not kept.
	return s.put(sector)
}

// clear selects b.
func (s *Switch) clear() error {
	other, err := s.sector(s.b)
	if err != nil {
		return err
	}
	if blank, err := bootctl.Blank(bytes.NewReader(other), HeaderSize); err != nil || blank {
		return fmt.Errorf("%s has no header: nothing would be started", s.b)
	}
	now, err := s.sector(s.a)
	if err != nil || Cleared(now) {
		return err
	}
	// Kept before it is cleared: a cut in between changes nothing.
	if err := s.header.Save(now); err != nil {
		return err
	}
	return s.put(make([]byte, HeaderSize)) // commit point
}

// put writes a's first sector and reads it back.
func (s *Switch) put(sector []byte) (err error) {
	m, err := s.open(s.a, true)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := m.Close(); err == nil {
			err = cerr
		}
	}()
	if _, err := m.WriteAt(sector, 0); err != nil {
		return err
	}
	if err := m.Sync(); err != nil {
		return fmt.Errorf("%s: %w", s.a, err)
	}
	back := make([]byte, HeaderSize)
	if _, err := m.ReadAt(back, 0); err != nil {
		return err
	}
	if !bytes.Equal(back, sector) {
		return fmt.Errorf("%s holds another header than was written and synced: the medium is failing or write-protected", s.a)
	}
	return nil
}

func (s *Switch) sector(path string) ([]byte, error) {
	m, err := s.open(path, false)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	b := make([]byte, HeaderSize)
	if _, err := m.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read header of %s: %w", path, err)
	}
	return b, nil
}

// Cleared reports whether a sector is no header.
func Cleared(sector []byte) bool { return bytes.Count(sector, []byte{0}) == len(sector) }

// osMedium is a medium of the operating system.
type osMedium struct{ *os.File }

func openMedium(path string, write bool) (medium, error) {
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && hidesErasing(info) {
		err = fmt.Errorf("%s erases a whole block of flash to write one sector, so that a power cut would leave a part of the copy: fallback-copy is for media with sectors", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return osMedium{f}, nil
}

// mtdBlockMajor is the device number of /dev/mtdblock0 and its like.
const mtdBlockMajor = 31

func hidesErasing(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&os.ModeDevice != 0 && unix.Major(uint64(st.Rdev)) == mtdBlockMajor
}

func (m osMedium) Sync() error {
	if err := m.File.Sync(); err != nil {
		return err
	}
	return os.NewSyscallError("fadvise", unix.Fadvise(int(m.Fd()), 0, 0, unix.FADV_DONTNEED))
}
