// SPDX-License-Identifier: Apache-2.0

// Package ext4super reads the superblock of an ext4 file system: where its
// parts are, and how it came to be. It needs nothing but the standard library,
// so the device can ask it whether a slot was mounted for writing or resized,
// without the rest of package fsmap.
//
// The layout is that of the Linux kernel's documentation of ext4, "Super
// Block". Nothing read is trusted: what Read returns has sizes that make sense
// together, but not that fit the image.
package ext4super

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Features of ext4 that change where things are.
const (
	CompatResizeInode = 0x10
	CompatSparseV2    = 0x200

	IncompatRecover = 0x4
	IncompatMetaBG  = 0x10
	Incompat64Bit   = 0x80

	ROCompatSparse    = 0x1
	ROCompatChecksums = 0x10 | 0x400
	ROCompatOrphans   = 0x10000
)

const (
	offset = 1024
	length = 1024
	magic  = 0xef53

	stateClean  = 1
	stateErrors = 2
)

// ErrNone is the error for what does not begin with an ext4 file system.
var ErrNone = errors.New("no ext4 file system begins here")

// A Superblock is what ext4 says about itself. ext2 and ext3 have the same.
type Superblock struct {
	UUID     string    // empty if it has none
	HashSeed string    // empty if it has none
	Features [3]uint32 // compatible, incompatible, read-only compatible

	BlockSize      int64 // bytes
	Blocks         int64
	FirstBlock     int64 // number of the block with the superblock: 0 or 1
	BlocksPerGroup int64
	Groups         int64
	Inodes         int64
	InodesPerGroup int64
	InodeSize      int64    // bytes
	DescSize       int64    // bytes of a group's descriptor
	Reserved       int64    // blocks of descriptors to grow into
	Backups        [2]int64 // groups with a copy of the superblock, with CompatSparseV2

	// Created is when the file system was made, zero if that is not recorded.
	Created time.Time
	// MountCount and Mounted tell of mounts for writing since the file system was made.
	MountCount int
	Mounted    time.Time
	MountedOn  string
	// Written is when the superblock was written last, also by what made the file system.
	Written time.Time
	// Unfinished tells what a mount for writing left, in words: a journal that has to
	// be replayed, files that were deleted while they were open, a state that is not
	// clean. It is empty after the file system was unmounted, or made and never mounted.
	Unfinished []string
	// Checked is when e2fsck ran last, or the file system was made.
	Checked time.Time
	// Resized: the room that is reserved for growing is not what mke2fs reserves
	// for a file system of this size, unless it was told to.
	Resized bool
}

// Read reads the superblock of what r holds. The error is ErrNone if that is
// not ext4 or shorter than a superblock.
func Read(r io.ReaderAt) (*Superblock, error) {
	b := make([]byte, length)
	if n, err := r.ReadAt(b, offset); n < length {
		if err == io.EOF {
			return nil, ErrNone
		}
		return nil, fmt.Errorf("read ext4 superblock: %w", err)
	}
	if binary.LittleEndian.Uint16(b[0x38:]) != magic {
		return nil, ErrNone
	}
	s, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("read ext4 superblock: %w", err)
	}
	return s, nil
}

func parse(b []byte) (*Superblock, error) {
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(b[at:])) }
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(b[at:])) }
	if u32(0x18) > 6 {
		return nil, errors.New("the block size is more than 64 KiB")
	}
	s := &Superblock{
		UUID: uuid(b[0x68:0x78]), HashSeed: uuid(b[0xec:0xfc]),
		Features:  [3]uint32{uint32(u32(0x5c)), uint32(u32(0x60)), uint32(u32(0x64))},
		BlockSize: 1024 << u32(0x18), Blocks: u32(0x4), FirstBlock: u32(0x14), BlocksPerGroup: u32(0x20),
		Inodes: u32(0), InodesPerGroup: u32(0x28), InodeSize: 128, DescSize: 32,
		Reserved: u16(0xce), Backups: [2]int64{u32(0x24c), u32(0x250)},
		Created: unix(u32(0x108)), MountCount: int(u16(0x34)), Mounted: unix(u32(0x2c)), MountedOn: printable(b[0x88:0xc8]),
		Written: unix(u32(0x30)), Checked: unix(u32(0x40)),
	}
	if s.Features[1]&Incompat64Bit != 0 {
		s.Blocks |= u32(0x150) << 32
		s.DescSize = u16(0xfe)
	}
	if u32(0x4c) > 0 {
		s.InodeSize = u16(0x58)
	}
	switch {
	case s.Blocks < 1 || s.Blocks > 1<<48 || s.FirstBlock > 1 || s.FirstBlock >= s.Blocks:
		return nil, errors.New("the number of blocks makes no sense")
	case s.BlocksPerGroup < 1 || s.BlocksPerGroup > 8*s.BlockSize || s.InodesPerGroup < 1 || s.InodesPerGroup > 8*s.BlockSize:
		return nil, errors.New("the size of a group makes no sense")
	case s.InodeSize < 128 || s.InodeSize > s.BlockSize || s.InodeSize&(s.InodeSize-1) != 0:
		return nil, errors.New("the size of an inode makes no sense")
	case s.DescSize < 32 || s.DescSize > s.BlockSize || s.DescSize&(s.DescSize-1) != 0:
		return nil, errors.New("the size of a descriptor makes no sense")
	}
	s.Groups = (s.Blocks-s.FirstBlock-1)/s.BlocksPerGroup + 1
	s.Resized = s.Features[0]&CompatResizeInode != 0 && s.Reserved+s.DescBlocks() != s.freshDescBlocks()
	for _, left := range []struct {
		there bool
		what  string
	}{
		{s.Features[1]&IncompatRecover != 0, "its journal was not replayed"},
		{u32(0xe8) != 0 || s.Features[2]&ROCompatOrphans != 0, "it lists orphans, files that were deleted while they were open"},
		{u16(0x3a)&stateClean == 0, "it was not unmounted"},
		{u16(0x3a)&stateErrors != 0, "the kernel found errors in it"},
	} {
		if left.there {
			s.Unfinished = append(s.Unfinished, left.what)
		}
	}
	return s, nil
}

// Size is how many bytes the file system takes.
func (s *Superblock) Size() int64 { return s.Blocks * s.BlockSize }

// WasMounted reports whether the file system was mounted for writing since it was made.
func (s *Superblock) WasMounted() bool {
	return s.MountCount > 0 || !s.Mounted.IsZero() || len(s.Unfinished) > 0
}

// DescBlocks is how many blocks the group descriptors take.
func (s *Superblock) DescBlocks() int64 { return (s.Groups*s.DescSize-1)/s.BlockSize + 1 }

// freshDescBlocks is how many blocks mke2fs sets aside for descriptors, those
// it reserves included: enough to grow 1024 times. resize2fs keeps the sum.
func (s *Superblock) freshDescBlocks() int64 {
	largest := int64(1<<32 - 1)
	if s.Blocks < largest/1024 {
		largest = s.Blocks * 1024
	}
	groups := (largest - s.FirstBlock + s.BlocksPerGroup - 1) / s.BlocksPerGroup
	perBlock := s.BlockSize / s.DescSize
	return min((groups+perBlock-1)/perBlock, s.DescBlocks()+s.BlockSize/4)
}

// HasCopy tells whether a group begins with a copy of the superblock.
func (s *Superblock) HasCopy(group int64) bool {
	switch {
	case group == 0:
		return true
	case s.Features[0]&CompatSparseV2 != 0:
		return group == s.Backups[0] || group == s.Backups[1]
	case s.Features[2]&ROCompatSparse == 0 || group == 1:
		return true
	}
	for _, base := range []int64{3, 5, 7} {
		n := group
		for n%base == 0 {
			n /= base
		}
		if n == 1 {
			return true
		}
	}
	return false
}

// printable is b up to its NUL.
func printable(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, b))
}

func uuid(b []byte) string {
	if [16]byte(b) == [16]byte{} {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func unix(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}
