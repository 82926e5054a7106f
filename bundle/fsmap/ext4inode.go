// SPDX-License-Identifier: Apache-2.0

package fsmap

import (
	"encoding/binary"
	"fmt"
)

const (
	inodeExtents = 0x80000
	inodeInline  = 0x10000000

	extentMagic = 0xf30a
	maxDepth    = 5
	// A longer extent is one that was never written, and this much shorter.
	maxExtent = 32768
)

// An ext4Inode is an inode and where its blocks are.
type ext4Inode struct {
	File
	runs []run
	tree []int64 // blocks of the tree that tells of them
}

// A run is a range of blocks of the image; logical is its place in the file.
type run struct{ logical, start, blocks int64 }

// inode takes in one entry of an inode table.
func (e *ext4) inode(ino uint64, b []byte) error {
	u16 := func(at int) uint16 { return binary.LittleEndian.Uint16(b[at:]) }
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	mode, flags := u16(0), u32(0x20)
	if ino == ext4ResizeInode { // it has the descriptors' reserve, which is accounted for, behind one block
		e.add(Super, int64(u32(0x28+4*13)), 1, -1)
		return nil
	}
	if mode == 0 || u16(0x1a) == 0 && ino > 10 {
		return nil // unused or deleted
	}
	in := &ext4Inode{File: File{
		Inode: ino, Mode: mode, Size: int64(u32(4)) | int64(u32(0x6c)&0x7fffffff)<<32,
		UID: uint32(u16(2)) | uint32(u16(0x78))<<16, GID: uint32(u16(0x18)) | uint32(u16(0x7a))<<16,
	}}
	extra := int64(0)
	if e.InodeSize >= 160 {
		extra = 128 + int64(u16(0x80))
	}
	stamp := func(at, more int) int64 {
		s := int64(int32(u32(at)))
		if int64(more)+4 > extra {
			return s * 1e9
		}
		x := int64(u32(more))
		return (s+x&3<<32)*1e9 + x>>2
	}
	in.ATime, in.CTime, in.MTime = stamp(0x8, 0x8c), stamp(0xc, 0x84), stamp(0x10, 0x88)
	if extra >= 0x98 {
		in.CRTime = stamp(0x90, 0x94)
	}
	if acl := int64(u32(0x68)) | int64(u16(0x76))<<32; acl != 0 {
		if err := e.spend(); err != nil {
			return err
		}
		in.tree = append(in.tree, acl)
	}
	kind := mode & 0xf000
	var err error
	switch {
	case flags&inodeInline != 0 || kind != 0x4000 && kind != 0x8000 && kind != 0xa000:
	case kind == 0xa000 && in.Size < 60: // the target of the link is where extents would be
	case flags&inodeExtents != 0:
		err = e.extents(in, b[0x28:0x64], -1)
	default:
		err = e.indirect(in, b[0x28:0x64])
	}
	e.files[ino] = in
	e.order = append(e.order, ino)
	return err
}

// extents reads a node of an extent tree. depth is -1 for the root, which tells its own.
func (e *ext4) extents(in *ext4Inode, b []byte, depth int) error {
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(b[at:])) }
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(b[at:])) }
	entries, d := u16(2), u16(6)
	if u16(0) != extentMagic || entries > len(b)/12-1 || d > maxDepth || depth >= 0 && d != depth {
		return fmt.Errorf("its extent tree is damaged")
	}
	for at := 12; at < 12+12*entries; at += 12 {
		if err := e.spend(); err != nil {
			return err
		}
		if d > 0 {
			child := u32(at+4) | int64(u16(at+8))<<32
			node, err := e.read(child*e.BlockSize, e.BlockSize)
			if err != nil {
				return err
			}
			in.tree = append(in.tree, child)
			if err := e.extents(in, node, d-1); err != nil {
				return err
			}
			continue
		}
		n := int64(u16(at + 4))
		if n > maxExtent {
			n -= maxExtent
		}
		in.runs = append(in.runs, run{u32(at), u32(at+8) | int64(u16(at+6))<<32, n})
	}
	return nil
}

// indirect reads the block map of ext2 and ext3.
func (e *ext4) indirect(in *ext4Inode, b []byte) error {
	logical := int64(0)
	if err := e.pointers(in, b[:48], 0, &logical); err != nil {
		return err
	}
	for depth := 1; depth <= 3; depth++ {
		if err := e.pointers(in, b[44+4*depth:][:4], depth, &logical); err != nil {
			return err
		}
	}
	return nil
}

// pointers reads block numbers, depth levels above the blocks of the file.
func (e *ext4) pointers(in *ext4Inode, b []byte, depth int, logical *int64) error {
	span := int64(1)
	for range depth {
		span *= e.BlockSize / 4
	}
	for ; len(b) > 0; b = b[4:] {
		at := int64(binary.LittleEndian.Uint32(b))
		if at == 0 {
			*logical += span
			continue
		}
		if err := e.spend(); err != nil {
			return err
		}
		if depth == 0 {
			if n := len(in.runs) - 1; n >= 0 && in.runs[n].start+in.runs[n].blocks == at && in.runs[n].logical+in.runs[n].blocks == *logical {
				in.runs[n].blocks++
			} else {
				in.runs = append(in.runs, run{*logical, at, 1})
			}
			*logical++
			continue
		}
		node, err := e.read(at*e.BlockSize, e.BlockSize)
		if err != nil {
			return err
		}
		in.tree = append(in.tree, at)
		if err := e.pointers(in, node, depth-1, logical); err != nil {
			return err
		}
	}
	return nil
}
