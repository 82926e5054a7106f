// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl/mtd"
)

// Store keeps the copies of an environment. It knows nothing of what is in them.
type Store interface {
	// Geometry tells the size of a copy in bytes and the number of copies, 1 or 2.
	Geometry() (size, copies int)
	// Traits tells what follows from the medium.
	Traits() Traits
	// Lock keeps others out, U-Boot's tools among them, until release is called.
	// Who only reads may share the lock, and goes without where it has no right
	// to it or where somebody keeps it.
	Lock(write bool) (release func(), err error)
	// ReadCopy reads copy i from the medium, not from a cache. ErrUnreadable
	// means that the medium fails there.
	ReadCopy(i int) ([]byte, error)
	// WriteCopy writes copy i in one write and returns once it is on the medium.
	WriteCopy(i int, image []byte) error
	// Obsolete clears the flag of copy i and leaves the rest of it as it is. Only
	// convention ActiveObsolete needs it.
	Obsolete(i int) error
	// Where names copy i for people.
	Where(i int) string
}

// Traits is what follows from the medium of a store.
type Traits struct {
	// Flags tells how two copies say which of them is in force.
	Flags Convention
	// Warnings says, in sentences, what of the place of the copies is unwise.
	Warnings []string
}

// ErrUnreadable: the medium cannot read a copy. The other copy may still be good.
var ErrUnreadable = errors.New("medium error")

// unreadable adds ErrUnreadable to what a medium says when it fails.
func unreadable(err error) error {
	for _, e := range []error{unix.EIO, unix.EBADMSG, unix.EUCLEAN} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", ErrUnreadable, err)
		}
	}
	return err
}

// place is where one copy is stored.
type place interface {
	read() ([]byte, error)
	write(image []byte) error
	// clash says what is wrong with two copies in these places, of which one is
	// on the same device as the other. Warnings are no reason to refuse.
	clash(other place) (warning string, err error)
	String() string
}

// system is what a store needs of the operating system; tests have their own.
type system struct {
	stat   func(path string) (os.FileInfo, error)
	disk   func(path string, flags int) (disk, error)
	flash  func(path string, flags int) (flash, error)
	volume func(path string, flags int) (volume, error)
	sysfs  string
}

func realSystem() system {
	return system{stat: os.Stat, disk: openDisk, flash: openFlash, volume: openVolume, sysfs: "/sys"}
}

// store is a Store on the places of its copies.
type store struct {
	size   int64
	places []place
	traits Traits
	lock   string
}

// OpenStore finds the copies that config names and checks that they are where
// they can be. lockFile is DefaultLockFile unless given.
func OpenStore(config Config, lockFile string) (Store, error) {
	return openStore(config, lockFile, realSystem())
}

func openStore(config Config, lockFile string, sys system) (Store, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	if lockFile == "" {
		lockFile = DefaultLockFile
	}
	s := &store{size: config[0].Size, lock: lockFile}
	var infos []os.FileInfo
	var flags []Convention
	for _, l := range config {
		p, convention, info, err := sys.find(l)
		if err != nil {
			return nil, fmt.Errorf("open boot environment: %w", err)
		}
		s.places = append(s.places, p)
		if f, ok := p.(*flashPlace); ok {
			if len(config) == 2 && convention == ActiveObsolete && !f.info.Bits {
				return nil, fmt.Errorf("open boot environment: %s is NOR flash that cannot clear a single bit (it has checksums of its own), so neither U-Boot nor this can tell which of two copies is in force: use one copy, or UBI", l.Path)
			}
			if f.shared() {
				s.traits.Warnings = append(s.traits.Warnings, fmt.Sprintf("something else lies behind the copy at %s, in the same erase block of %#x bytes: "+
					"whenever the environment is written, by U-Boot too, a power cut can destroy it; move it, or enlarge CONFIG_ENV_SIZE", p, f.info.EraseSize))
			}
		}
		infos = append(infos, info)
		flags = append(flags, convention)
	}
	s.traits.Flags = flags[0]
	if len(s.places) == 1 {
		return s, nil
	}
	// Copies with different rules have no order, so U-Boot's tools refuse them, too.
	if flags[0] != flags[1] {
		return nil, fmt.Errorf("open boot environment: one copy is on NOR flash and the other is not: put both on one kind of medium")
	}
	if !sameDevice(infos[0], infos[1]) {
		return s, nil
	}
	warning, err := s.places[0].clash(s.places[1])
	if err != nil {
		return nil, fmt.Errorf("open boot environment: %w: correct fw_env.config", err)
	}
	if warning != "" {
		s.traits.Warnings = append(s.traits.Warnings, warning)
	}
	return s, nil
}

// find opens the device of a location to see what it is.
func (sys system) find(l Location) (place, Convention, os.FileInfo, error) {
	path, err := sys.volumeNode(l.Path)
	if err != nil {
		return nil, Counter, nil, err
	}
	l.Path = path
	info, err := sys.stat(path)
	if err != nil {
		return nil, Counter, nil, err
	}
	if info.Mode()&os.ModeCharDevice == 0 {
		p, err := sys.findDisk(l, info)
		return p, Counter, info, err
	}
	if name := sys.volumeName(info); name != "" {
		p, err := sys.findVolume(l, name)
		return p, Counter, info, err
	}
	p, err := sys.findFlash(l)
	if errors.Is(err, mtd.ErrNotMTD) {
		err = fmt.Errorf("%s is a character device, but neither an MTD device nor a UBI volume", path)
	}
	if err != nil {
		return nil, Counter, nil, err
	}
	if p.info.Kind == mtd.NOR {
		return p, ActiveObsolete, info, nil
	}
	return p, Counter, info, nil
}

// sameDevice reports whether two names lead to one medium.
func sameDevice(a, b os.FileInfo) bool {
	if os.SameFile(a, b) {
		return true
	}
	return a.Mode()&os.ModeDevice != 0 && a.Mode().Type() == b.Mode().Type() && deviceNumber(a) == deviceNumber(b)
}

// deviceNumber is that of a device node, and 0 for all else.
func deviceNumber(info fs.FileInfo) uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&os.ModeDevice == 0 {
		return 0
	}
	return uint64(st.Rdev)
}

func (s *store) Geometry() (size, copies int) { return int(s.size), len(s.places) }

func (s *store) Traits() Traits { return s.traits }

func (s *store) Where(i int) string { return s.places[i].String() }

func (s *store) Lock(write bool) (func(), error) { return lockFile(s.lock, write) }

func (s *store) ReadCopy(i int) ([]byte, error) {
	image, err := s.places[i].read()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.Where(i), unreadable(err))
	}
	return image, nil
}

func (s *store) WriteCopy(i int, image []byte) error {
	if int64(len(image)) != s.size {
		return fmt.Errorf("write %s: internal error: a copy of %d bytes where %d belong", s.Where(i), len(image), s.size)
	}
	if err := s.places[i].write(image); err != nil {
		return fmt.Errorf("write %s: %w", s.Where(i), err)
	}
	return nil
}

func (s *store) Obsolete(i int) error {
	p, ok := s.places[i].(*flashPlace)
	if !ok {
		return fmt.Errorf("clear the flag of %s: internal error: it is not on flash", s.Where(i))
	}
	if err := p.obsolete(); err != nil {
		return fmt.Errorf("clear the flag of %s: %w", s.Where(i), err)
	}
	return nil
}
