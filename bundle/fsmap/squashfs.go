// SPDX-License-Identifier: Apache-2.0

package fsmap

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

var squashCompressors = [...]string{1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}

// squashModes are the types of inodes that have no contents.
var squashModes = map[int64]uint16{
	3: 0xa000, 4: 0x6000, 5: 0x2000, 6: 0x1000, 7: 0xc000,
	10: 0xa000, 11: 0x6000, 12: 0x2000, 13: 0x1000, 14: 0xc000,
}

const (
	squashSuperSize = 96
	squashMeta      = 8 << 10 // a block of metadata, uncompressed
	squashCached    = 8 << 10 // blocks
	squashNone      = 0xffffffff

	squashUncompressedData = 1 << 24
)

// squash reads one file system. Its metadata is a chain of compressed blocks,
// and places in it are given as the block's place and the byte within.
type squash struct {
	*image
	m          *Map
	inodes     int64
	dirs       int64
	decompress func(b []byte) ([]byte, error)
	blocks     map[int64]squashBlock
	budget     int64
	seen       map[uint64]bool // inodes
}

type squashBlock struct {
	data []byte
	next int64
}

func readSquashFS(ctx context.Context, img *image) (*Map, error) {
	b, err := img.read(0, squashSuperSize)
	if err != nil || string(b[:4]) != "hsqs" {
		return nil, ErrUnknown
	}
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(b[at:])) }
	u64 := func(at int) int64 { return int64(binary.LittleEndian.Uint64(b[at:])) }
	kind := int(binary.LittleEndian.Uint16(b[20:]))
	m := &Map{Type: SquashFS, BlockSize: u32(12), Size: u64(40), Created: unix(u32(8))}
	if kind < 1 || kind >= len(squashCompressors) || m.Size < squashSuperSize || m.BlockSize < 4096 || m.BlockSize > 1<<20 {
		return nil, errors.New("read squashfs superblock: it is damaged")
	}
	m.Compression = squashCompressors[kind]
	s := &squash{
		image: img, m: m, inodes: u64(64), dirs: u64(72), blocks: make(map[int64]squashBlock),
		// A name or a block takes bytes, a few even after compression.
		budget: img.size/2 + 10000,
		seen:   make(map[uint64]bool),
	}
	switch m.Compression {
	case "gzip":
		s.decompress = inflate
	case "zstd":
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(squashMeta))
		if err != nil {
			return nil, fmt.Errorf("set up zstd: %w", err)
		}
		defer d.Close()
		s.decompress = func(b []byte) ([]byte, error) { return d.DecodeAll(b, nil) }
	default:
		m.Incomplete = fmt.Sprintf("directories compressed with %s are not supported", m.Compression)
		return m, nil
	}
	if err := s.all(ctx, uint64(u64(32)), u32(16), u64(80)); err != nil {
		m.Incomplete = err.Error()
	}
	return m, ctx.Err()
}

func inflate(b []byte) ([]byte, error) {
	r, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, squashMeta+1))
}

func (s *squash) all(ctx context.Context, root uint64, fragments, table int64) error {
	type dir struct {
		path string
		ref  uint64
	}
	for todo := []dir{{"", root}}; len(todo) > 0; todo = todo[1:] {
		if err := ctx.Err(); err != nil {
			return err
		}
		d := todo[0]
		err := s.inode(d.path, d.ref, func(name string, ref uint64, isDir bool) error {
			path := d.path + "/" + name
			if len(path) > maxPath {
				return nil
			}
			if isDir {
				todo = append(todo, dir{path, ref})
				return nil
			}
			return s.inode(path, ref, nil)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", d.path+"/", err)
		}
	}
	return s.fragments(fragments, table)
}

// fragments finds the blocks that hold the ends of many files.
func (s *squash) fragments(n, table int64) error {
	for i := int64(0); i < n; i += squashMeta / 16 {
		b, err := s.read(table+i/(squashMeta/16)*8, 8)
		if err != nil {
			return fmt.Errorf("fragment table: %w", err)
		}
		c := s.at(int64(binary.LittleEndian.Uint64(b)), 0)
		for range min(n-i, squashMeta/16) {
			e := c.take(16)
			if c.err != nil {
				return fmt.Errorf("fragment table: %w", c.err)
			}
			length := int64(binary.LittleEndian.Uint32(e[8:])) &^ squashUncompressedData
			s.m.Extents = append(s.m.Extents, Extent{Piece{int64(binary.LittleEndian.Uint64(e)), length}, Fragments, -1})
		}
	}
	return nil
}

// inode reads the inode at ref, and calls entry for each name if it is a directory.
func (s *squash) inode(path string, ref uint64, entry func(name string, ref uint64, isDir bool) error) error {
	if s.budget--; s.budget < 0 {
		return errors.New("there are more names than there is room for")
	}
	c := s.at(s.inodes+int64(ref>>16), int(ref&0xffff))
	head := c.take(16)
	if c.err != nil {
		return c.err
	}
	u16 := func(b []byte, at int) int64 { return int64(binary.LittleEndian.Uint16(b[at:])) }
	u32 := func(b []byte, at int) int64 { return int64(binary.LittleEndian.Uint32(b[at:])) }
	kind := u16(head, 0)
	f := File{
		Path: path, Inode: uint64(u32(head, 12)), Mode: uint16(u16(head, 2)) & 0xfff, UID: uint32(u16(head, 4)), GID: uint32(u16(head, 6)),
		MTime: u32(head, 8) * 1e9,
	}
	if path == "" {
		f.Path = "/"
	}
	if s.seen[f.Inode] { // by another name
		return nil
	}
	s.seen[f.Inode] = true
	f.ATime, f.CTime = f.MTime, f.MTime
	switch kind {
	case 1: // directory
		b := c.take(16)
		if c.err == nil {
			f.Mode |= 0x4000
			s.m.Files = append(s.m.Files, f)
			return s.directory(s.at(s.dirs+u32(b, 0), int(u16(b, 10))), u16(b, 8)-3, entry)
		}
	case 8: // large directory
		b := c.take(24)
		if c.err == nil {
			f.Mode |= 0x4000
			s.m.Files = append(s.m.Files, f)
			return s.directory(s.at(s.dirs+u32(b, 8), int(u16(b, 18))), u32(b, 4)-3, entry)
		}
	case 2: // file
		b := c.take(16)
		if c.err == nil {
			f.Size = u32(b, 12)
			return s.file(f, c, u32(b, 0), u32(b, 4) != squashNone)
		}
	case 9: // large file
		b := c.take(40)
		if c.err == nil {
			f.Size = int64(binary.LittleEndian.Uint64(b[8:]))
			return s.file(f, c, int64(binary.LittleEndian.Uint64(b)), u32(b, 28) != squashNone)
		}
	default:
		f.Mode |= squashModes[kind]
		s.m.Files = append(s.m.Files, f)
	}
	return c.err
}

// file takes in the compressed blocks of a file, which lie one behind the other.
func (s *squash) file(f File, c *cursor, at int64, tail bool) error {
	f.Mode |= 0x8000
	f.Partial, f.Compressed = tail, true
	n := f.Size / s.m.BlockSize
	if !tail && f.Size%s.m.BlockSize > 0 {
		n++
	}
	place := len(s.m.Files)
	s.m.Files = append(s.m.Files, f)
	for range n {
		if s.budget--; s.budget < 0 {
			return errors.New("there are more blocks than there is room for")
		}
		b := c.take(4)
		if c.err != nil {
			return c.err
		}
		length := int64(binary.LittleEndian.Uint32(b)) &^ squashUncompressedData
		if length > s.m.BlockSize || at < 0 || at > s.size {
			return errors.New("a block is outside the image")
		}
		if length > 0 { // else it is zero
			s.m.Extents = append(s.m.Extents, Extent{Piece{at, length}, Contents, place})
		}
		at += length
	}
	return nil
}

func (s *squash) directory(c *cursor, length int64, entry func(string, uint64, bool) error) error {
	if entry == nil {
		return errors.New("a directory is damaged")
	}
	for length > 0 {
		h := c.take(12)
		if c.err != nil {
			return c.err
		}
		length -= 12
		block := uint64(binary.LittleEndian.Uint32(h[4:]))
		count := binary.LittleEndian.Uint32(h)
		if count >= 256 {
			return errors.New("a directory is damaged")
		}
		for range count + 1 {
			e := c.take(8)
			if c.err != nil {
				return c.err
			}
			n := int(binary.LittleEndian.Uint16(e[6:])) + 1
			offset, kind := binary.LittleEndian.Uint16(e), binary.LittleEndian.Uint16(e[4:])
			if n > 256 {
				return errors.New("a name is too long")
			}
			name := c.take(n)
			if c.err != nil {
				return c.err
			}
			length -= int64(8 + n)
			if err := entry(text(name), block<<16|uint64(offset), kind == 1 || kind == 8); err != nil {
				return err
			}
		}
	}
	return nil
}

// A cursor reads on from a place in the metadata.
type cursor struct {
	s    *squash
	rest []byte
	next int64
	err  error
}

func (s *squash) at(block int64, offset int) *cursor {
	c := &cursor{s: s, next: block}
	c.take(offset)
	return c
}

// take returns the next n bytes, nil after an error.
func (c *cursor) take(n int) []byte {
	for c.err == nil && len(c.rest) < n {
		b, err := c.s.block(c.next)
		if err != nil {
			c.err = err
			break
		}
		c.next = b.next
		c.rest = append(c.rest[:len(c.rest):len(c.rest)], b.data...)
	}
	if c.err != nil {
		return nil
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

func (s *squash) block(at int64) (squashBlock, error) {
	if b, known := s.blocks[at]; known {
		return b, nil
	}
	head, err := s.read(at, 2)
	if err != nil {
		return squashBlock{}, err
	}
	n := int64(binary.LittleEndian.Uint16(head))
	plain := n&0x8000 != 0
	n &= 0x7fff
	data, err := s.read(at+2, n)
	if err == nil && !plain {
		data, err = s.decompress(data)
	}
	if err == nil && (len(data) == 0 || len(data) > squashMeta) {
		err = errors.New("it has a wrong size")
	}
	if err != nil {
		return squashBlock{}, fmt.Errorf("metadata at %d: %w", at, err)
	}
	b := squashBlock{data, at + 2 + n}
	if len(s.blocks) >= squashCached {
		clear(s.blocks)
	}
	s.blocks[at] = b
	return b, nil
}
