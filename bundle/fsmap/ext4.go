// SPDX-License-Identifier: Apache-2.0

package fsmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/updaterd/updaterd/bundle/fsmap/ext4super"
)

const (
	ext4RootInode    = 2
	ext4ResizeInode  = 7
	ext4JournalInode = 8
)

// ext4 reads one file system.
type ext4 struct {
	*image
	*ext4super.Superblock
	m      *Map
	budget int64 // pieces and blocks that may still be looked at

	files map[uint64]*ext4Inode
	order []uint64 // of files, as found
}

func readExt4(ctx context.Context, img *image) (*Map, error) {
	s, err := ext4super.Read(io.NewSectionReader(img.r, 0, img.size))
	if errors.Is(err, ext4super.ErrNone) {
		return nil, ErrUnknown
	}
	if err != nil {
		return nil, err
	}
	e := &ext4{
		image: img, Superblock: s,
		m: &Map{Type: Ext4, UUID: s.UUID, BlockSize: s.BlockSize, Size: s.Size(), Created: s.Created, Ext4: s},
		// No sound file system has more pieces than blocks.
		budget: min(s.Blocks, img.size/s.BlockSize) + 1000,
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

// all goes through all groups and their inodes.
func (e *ext4) all(ctx context.Context) error {
	e.files = make(map[uint64]*ext4Inode)
	f := e.Features
	if f[1]&ext4super.IncompatMetaBG != 0 {
		return errors.New("it has the feature meta_bg, which is not supported")
	}
	if e.Blocks > e.size/e.BlockSize {
		return errors.New("it is larger than the image: the image was cut off")
	}
	if e.Groups > e.size/e.BlockSize { // each group has blocks of its own
		return errors.New("the number of groups makes no sense")
	}
	for g := range e.Groups {
		if err := ctx.Err(); err != nil {
			return err
		}
		d, err := e.read((e.FirstBlock+1)*e.BlockSize+g*e.DescSize, e.DescSize)
		if err != nil {
			return fmt.Errorf("group %d: %w", g, err)
		}
		if e.HasCopy(g) {
			n := 1 + e.DescBlocks()
			if f[0]&ext4super.CompatResizeInode != 0 {
				n += e.Reserved
			}
			e.add(Super, e.FirstBlock+g*e.BlocksPerGroup, min(n, e.BlocksPerGroup), -1)
			if g == 0 && e.FirstBlock == 1 {
				e.add(Super, 0, 1, -1)
			}
		}
		if err := e.group(g, d); err != nil {
			return fmt.Errorf("group %d: %w", g, err)
		}
	}
	return nil
}

// groupInodesUnused in a descriptor: no inode of the group was ever used.
const groupInodesUnused = 1

func (e *ext4) group(g int64, d []byte) error {
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(d[at:])) }
	block := func(lo, hi int) int64 {
		n := int64(binary.LittleEndian.Uint32(d[lo:]))
		if e.DescSize >= 64 {
			n |= int64(binary.LittleEndian.Uint32(d[hi:])) << 32
		}
		return n
	}
	e.add(Bitmaps, block(0x0, 0x20), 1, -1)
	e.add(Bitmaps, block(0x4, 0x24), 1, -1)
	table := block(0x8, 0x28)
	length := (e.InodesPerGroup*e.InodeSize-1)/e.BlockSize + 1
	e.add(Inodes, table, length, -1)
	used := e.InodesPerGroup
	// Only with checksums do descriptors tell what was never used.
	if e.Features[2]&ext4super.ROCompatChecksums != 0 {
		used -= min(u16(0x1c), used)
		if u16(0x12)&groupInodesUnused != 0 {
			used = 0
		}
	}
	for from := int64(0); from < used; {
		n := min(used-from, maxRead/e.InodeSize/16)
		b, err := e.read(table*e.BlockSize+from*e.InodeSize, n*e.InodeSize)
		if err != nil {
			return fmt.Errorf("inode table: %w", err)
		}
		for i := range n {
			ino := g*e.InodesPerGroup + from + i + 1
			if err := e.inode(uint64(ino), b[i*e.InodeSize:][:e.InodeSize]); err != nil {
				return fmt.Errorf("inode %d: %w", ino, err)
			}
		}
		from += n
	}
	return nil
}

// add notes what blocks are used for.
func (e *ext4) add(a Area, block, n int64, file int) {
	if block < 0 || block >= e.Blocks || n > e.Blocks-block {
		return
	}
	e.m.Extents = append(e.m.Extents, Extent{Piece{block * e.BlockSize, n * e.BlockSize}, a, file})
}

// spend counts against what a sound file system of this size can have.
func (e *ext4) spend() error {
	if e.budget--; e.budget < 0 {
		return errors.New("it has more pieces than blocks: it is damaged")
	}
	return nil
}
