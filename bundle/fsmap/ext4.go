// SPDX-License-Identifier: Apache-2.0

package fsmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Features of ext4 that change where things are.
const (
	compatResizeInode = 0x10
	compatSparseV2    = 0x200

	incompatRecover = 0x4
	incompatMetaBG  = 0x10
	incompat64Bit   = 0x80

	roCompatSparse    = 0x1
	roCompatChecksums = 0x10 | 0x400
	roCompatOrphans   = 0x10000
)

const (
	ext4SuperOffset = 1024
	ext4SuperSize   = 1024

	stateClean  = 1
	stateErrors = 2

	ext4RootInode    = 2
	ext4ResizeInode  = 7
	ext4JournalInode = 8
)

// Ext4Super is what the superblock says about how an image came to be.
type Ext4Super struct {
	HashSeed string
	Features [3]uint32 // compatible, incompatible, read-only compatible
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
	Checked   time.Time
	InodeSize int
	Inodes    int64
	// Resized: the room that is reserved for growing is not what mke2fs reserves
	// for a file system of this size, unless it was told to.
	Resized bool
}

// ext4 reads one file system.
type ext4 struct {
	*image
	m         *Map
	block     int64 // bytes
	blocks    int64
	first     int64 // number of the block with the superblock
	groups    int64
	perGroup  int64 // blocks
	inodes    int64
	inodesPer int64 // in a group
	inodeSize int64
	descSize  int64
	reserved  int64 // descriptor blocks to grow into
	backups   [2]int64
	budget    int64 // pieces and blocks that may still be looked at

	files map[uint64]*ext4Inode
	order []uint64 // of files, as found
}

func readExt4(ctx context.Context, img *image) (*Map, error) {
	e, err := openExt4(img)
	if err != nil {
		return nil, err
	}
	if err := e.all(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		e.m.Incomplete = err.Error()
	}
	e.name(ctx)
	e.emit()
	return e.m, ctx.Err()
}

func (e *ext4) super(b []byte) error {
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(b[at:])) }
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(b[at:])) }
	features := [3]uint32{uint32(u32(0x5c)), uint32(u32(0x60)), uint32(u32(0x64))}
	if u32(0x18) > 6 {
		return errors.New("the block size is more than 64 KiB")
	}
	e.block = 1024 << u32(0x18)
	e.blocks = u32(0x4)
	e.descSize = 32
	if features[1]&incompat64Bit != 0 {
		e.blocks |= u32(0x150) << 32
		e.descSize = u16(0xfe)
	}
	e.first, e.perGroup, e.inodesPer, e.inodes = u32(0x14), u32(0x20), u32(0x28), u32(0)
	e.inodeSize = 128
	if u32(0x4c) > 0 {
		e.inodeSize = u16(0x58)
	}
	switch {
	case e.blocks < 1 || e.blocks > 1<<48 || e.first > 1 || e.first >= e.blocks:
		return errors.New("the number of blocks makes no sense")
	case e.perGroup < 1 || e.perGroup > 8*e.block || e.inodesPer < 1 || e.inodesPer > 8*e.block:
		return errors.New("the size of a group makes no sense")
	case e.inodeSize < 128 || e.inodeSize > e.block || e.inodeSize&(e.inodeSize-1) != 0:
		return errors.New("the size of an inode makes no sense")
	case e.descSize < 32 || e.descSize > e.block || e.descSize&(e.descSize-1) != 0:
		return errors.New("the size of a descriptor makes no sense")
	}
	e.groups = (e.blocks-e.first-1)/e.perGroup + 1
	e.reserved = u16(0xce)
	e.backups = [2]int64{u32(0x24c), u32(0x250)}
	// No sound file system has more pieces than blocks.
	e.budget = min(e.blocks, e.size/e.block) + 1000
	e.m.UUID, e.m.BlockSize, e.m.Size, e.m.Created = uuid(b[0x68:0x78]), e.block, e.blocks*e.block, unix(u32(0x108))
	e.m.Ext4 = &Ext4Super{
		HashSeed: uuid(b[0xec:0xfc]), Features: features, InodeSize: int(e.inodeSize), Inodes: e.inodes,
		MountCount: int(u16(0x34)), Mounted: unix(u32(0x2c)), MountedOn: text(b[0x88:0xc8]), Checked: unix(u32(0x40)), Written: unix(u32(0x30)),
		Resized: features[0]&compatResizeInode != 0 && e.reserved+e.descBlocks() != e.freshDescBlocks(),
	}
	for _, left := range []struct {
		there bool
		what  string
	}{
		{features[1]&incompatRecover != 0, "its journal was not replayed"},
		{u32(0xe8) != 0 || features[2]&roCompatOrphans != 0, "it lists orphans, files that were deleted while they were open"},
		{u16(0x3a)&stateClean == 0, "it was not unmounted"},
		{u16(0x3a)&stateErrors != 0, "the kernel found errors in it"},
	} {
		if left.there {
			e.m.Ext4.Unfinished = append(e.m.Ext4.Unfinished, left.what)
		}
	}
	return nil
}

// WasMounted reports whether the file system was mounted for writing since it was made.
func (s *Ext4Super) WasMounted() bool {
	return s.MountCount > 0 || !s.Mounted.IsZero() || len(s.Unfinished) > 0
}

// ReadExt4Super reads of an ext4 file system what its superblock says, and nothing
// else: Files and Extents are empty. The error is ErrUnknown if there is none.
func ReadExt4Super(r io.ReaderAt, size int64) (*Map, error) {
	e, err := openExt4(&image{r, size})
	if err != nil {
		return nil, err
	}
	return e.m, nil
}

// openExt4 reads the superblock.
func openExt4(img *image) (*ext4, error) {
	b, err := img.read(ext4SuperOffset, ext4SuperSize)
	if err != nil || binary.LittleEndian.Uint16(b[0x38:]) != 0xef53 {
		return nil, ErrUnknown
	}
	e := &ext4{image: img, m: &Map{Type: Ext4}}
	if err := e.super(b); err != nil {
		return nil, fmt.Errorf("read ext4 superblock: %w", err)
	}
	return e, nil
}

// text is b up to its NUL, printable.
func text(b []byte) string {
	var s []byte
	for _, c := range b {
		if c == 0 {
			break
		}
		if c < ' ' || c > '~' {
			c = '?'
		}
		s = append(s, c)
	}
	return string(s)
}

// descBlocks is how many blocks the group descriptors take.
func (e *ext4) descBlocks() int64 { return (e.groups*e.descSize-1)/e.block + 1 }

// freshDescBlocks is how many blocks mke2fs sets aside for descriptors, those
// it reserves included: enough to grow 1024 times. resize2fs keeps the sum.
func (e *ext4) freshDescBlocks() int64 {
	largest := int64(1<<32 - 1)
	if e.blocks < largest/1024 {
		largest = e.blocks * 1024
	}
	groups := (largest - e.first + e.perGroup - 1) / e.perGroup
	perBlock := e.block / e.descSize
	return min((groups+perBlock-1)/perBlock, e.descBlocks()+e.block/4)
}

// all goes through all groups and their inodes.
func (e *ext4) all(ctx context.Context) error {
	e.files = make(map[uint64]*ext4Inode)
	f := e.m.Ext4.Features
	if f[1]&incompatMetaBG != 0 {
		return errors.New("it has the feature meta_bg, which is not supported")
	}
	if e.blocks > e.size/e.block {
		return errors.New("it is larger than the image: the image was cut off")
	}
	if e.groups > e.size/e.block { // each group has blocks of its own
		return errors.New("the number of groups makes no sense")
	}
	for g := range e.groups {
		if err := ctx.Err(); err != nil {
			return err
		}
		d, err := e.read((e.first+1)*e.block+g*e.descSize, e.descSize)
		if err != nil {
			return fmt.Errorf("group %d: %w", g, err)
		}
		if e.hasSuper(g) {
			n := 1 + e.descBlocks()
			if f[0]&compatResizeInode != 0 {
				n += e.reserved
			}
			e.add(Super, e.first+g*e.perGroup, min(n, e.perGroup), -1)
			if g == 0 && e.first == 1 {
				e.add(Super, 0, 1, -1)
			}
		}
		if err := e.group(g, d); err != nil {
			return fmt.Errorf("group %d: %w", g, err)
		}
	}
	return nil
}

// hasSuper tells whether a group begins with a copy of the superblock.
func (e *ext4) hasSuper(g int64) bool {
	f := e.m.Ext4.Features
	switch {
	case g == 0:
		return true
	case f[0]&compatSparseV2 != 0:
		return g == e.backups[0] || g == e.backups[1]
	case f[2]&roCompatSparse == 0 || g == 1:
		return true
	}
	for _, base := range []int64{3, 5, 7} {
		n := g
		for n%base == 0 {
			n /= base
		}
		if n == 1 {
			return true
		}
	}
	return false
}

// groupInodesUnused in a descriptor: no inode of the group was ever used.
const groupInodesUnused = 1

func (e *ext4) group(g int64, d []byte) error {
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(d[at:])) }
	block := func(lo, hi int) int64 {
		n := int64(binary.LittleEndian.Uint32(d[lo:]))
		if e.descSize >= 64 {
			n |= int64(binary.LittleEndian.Uint32(d[hi:])) << 32
		}
		return n
	}
	e.add(Bitmaps, block(0x0, 0x20), 1, -1)
	e.add(Bitmaps, block(0x4, 0x24), 1, -1)
	table := block(0x8, 0x28)
	length := (e.inodesPer*e.inodeSize-1)/e.block + 1
	e.add(Inodes, table, length, -1)
	used := e.inodesPer
	// Only with checksums do descriptors tell what was never used.
	if e.m.Ext4.Features[2]&roCompatChecksums != 0 {
		used -= min(u16(0x1c), used)
		if u16(0x12)&groupInodesUnused != 0 {
			used = 0
		}
	}
	for from := int64(0); from < used; {
		n := min(used-from, maxRead/e.inodeSize/16)
		b, err := e.read(table*e.block+from*e.inodeSize, n*e.inodeSize)
		if err != nil {
			return fmt.Errorf("inode table: %w", err)
		}
		for i := range n {
			ino := g*e.inodesPer + from + i + 1
			if err := e.inode(uint64(ino), b[i*e.inodeSize:][:e.inodeSize]); err != nil {
				return fmt.Errorf("inode %d: %w", ino, err)
			}
		}
		from += n
	}
	return nil
}

// add notes what blocks are used for.
func (e *ext4) add(a Area, block, n int64, file int) {
	if block < 0 || block >= e.blocks || n > e.blocks-block {
		return
	}
	e.m.Extents = append(e.m.Extents, Extent{Piece{block * e.block, n * e.block}, a, file})
}

// spend counts against what a sound file system of this size can have.
func (e *ext4) spend() error {
	if e.budget--; e.budget < 0 {
		return errors.New("it has more pieces than blocks: it is damaged")
	}
	return nil
}
