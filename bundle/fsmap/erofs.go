// SPDX-License-Identifier: Apache-2.0

package fsmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

const erofsSuperOffset = 1024

// Features of EROFS that say what an image may hold.
const (
	erofsZeroPadding = 0x1 // which every compressed image has
	erofsBigClusters = 0x2
	erofsChunked     = 0x4
	erofsDevices     = 0x8
	erofsTailPacking = 0x10
	erofsFragments   = 0x20 // or parts that files share
)

// How an inode tells where its contents are.
const (
	erofsPlain = iota
	erofsCompressed
	erofsInline // like plain, with the end behind the inode
	erofsCompact
	erofsChunks
)

// erofs reads one file system.
type erofs struct {
	*image
	m        *Map
	meta     int64 // place of inode 0
	features uint32
	// compressor is that of the files that are compressed, if any is.
	compressor string
	budget     int64
	seen       map[uint64]int // inode -> place in m.Files
}

func readEROFS(ctx context.Context, img *image) (*Map, error) {
	b, err := img.read(erofsSuperOffset, 128)
	if err != nil || binary.LittleEndian.Uint32(b) != 0xe0f5e1e2 {
		return nil, ErrUnknown
	}
	if b[12] < 9 || b[12] > 16 {
		return nil, errors.New("read EROFS superblock: it is damaged")
	}
	m := &Map{
		Type: EROFS, BlockSize: 1 << b[12], UUID: uuid(b[48:64]),
		Created: unix(int64(binary.LittleEndian.Uint64(b[24:]))),
	}
	m.Size = int64(binary.LittleEndian.Uint32(b[36:])) * m.BlockSize
	e := &erofs{
		image: img, m: m, meta: int64(binary.LittleEndian.Uint32(b[40:])) * m.BlockSize,
		features: binary.LittleEndian.Uint32(b[80:]), budget: img.size/2 + 10000, seen: make(map[uint64]int),
	}
	e.compressor = "lz4"
	if e.features&erofsZeroPadding != 0 { // else there is no room for another
		if algorithms := binary.LittleEndian.Uint16(b[84:]); algorithms&^1 != 0 && algorithms < 16 {
			e.compressor = "lz4 or others"
		}
	}
	if e.features&erofsDevices != 0 {
		m.Incomplete = "contents on other devices are not supported"
		return m, nil
	}
	if err := e.all(ctx, uint64(binary.LittleEndian.Uint16(b[14:]))); err != nil {
		m.Incomplete = err.Error()
	}
	return m, ctx.Err()
}

func (e *erofs) all(ctx context.Context, root uint64) error {
	type dir struct {
		path string
		nid  uint64
	}
	for todo := []dir{{"", root}}; len(todo) > 0; todo = todo[1:] {
		if err := ctx.Err(); err != nil {
			return err
		}
		d := todo[0]
		path := d.path
		if path == "" {
			path = "/"
		}
		in, err := e.inode(path, d.nid)
		if err == nil && in != nil {
			err = e.names(in, func(name string, nid uint64, isDir bool) error {
				path := d.path + "/" + name
				if len(path) > maxPath {
					return nil
				}
				if isDir {
					todo = append(todo, dir{path, nid})
					return nil
				}
				_, err := e.inode(path, nid)
				return err
			})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// An erofsInode is what is needed of one to find its contents.
type erofsInode struct {
	place  int // in Map.Files
	size   int64
	layout int
	u      uint32
	end    int64 // of the inode and its attributes in the image
	pieces []Piece
}

// inode adds the file to the map; it returns nil if it is there already.
func (e *erofs) inode(path string, nid uint64) (*erofsInode, error) {
	if e.budget--; e.budget < 0 {
		return nil, errors.New("there are more names than there is room for")
	}
	if _, twice := e.seen[nid]; twice {
		return nil, nil
	}
	if nid > uint64(e.size)/32 {
		return nil, fmt.Errorf("inode %d is outside the image", nid)
	}
	at := e.meta + int64(nid)*32
	b, err := e.read(at, 32)
	if err != nil {
		return nil, err
	}
	u16 := func(at int) uint16 { return binary.LittleEndian.Uint16(b[at:]) }
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	in := &erofsInode{place: len(e.m.Files), layout: int(u16(0) >> 1 & 7), u: u32(16), end: at + 32}
	f := File{Path: path, Inode: uint64(u32(20)), Mode: u16(4)}
	if u16(0)&1 == 0 {
		f.Size, f.UID, f.GID = int64(u32(8)), uint32(u16(24)), uint32(u16(26))
		f.MTime = e.m.Created.UnixNano()
	} else {
		if b, err = e.read(at, 64); err != nil {
			return nil, err
		}
		in.end += 32
		f.Size, f.UID, f.GID = int64(binary.LittleEndian.Uint64(b[8:])), u32(24), u32(28)
		f.MTime = int64(binary.LittleEndian.Uint64(b[32:]))*1e9 + int64(u32(40))
	}
	f.ATime, f.CTime = f.MTime, f.MTime
	if f.Size < 0 {
		return nil, errors.New("its size makes no sense")
	}
	in.size = f.Size
	if n := int64(u16(2)); n > 0 {
		in.end += 12 + (n-1)*4
	}
	e.seen[nid] = in.place
	if err := e.contents(in, &f); err != nil {
		return nil, err
	}
	e.m.Files = append(e.m.Files, f)
	area := Contents
	if f.IsDir() {
		area = Directory
	}
	for _, p := range in.pieces {
		e.m.Extents = append(e.m.Extents, Extent{p, area, in.place})
	}
	return in, nil
}

// contents finds the pieces of a file.
func (e *erofs) contents(in *erofsInode, f *File) error {
	if kind := f.Mode & 0xf000; kind != 0x4000 && kind != 0x8000 && kind != 0xa000 || in.size == 0 {
		return nil
	}
	block := e.m.BlockSize
	start := int64(in.u) * block
	switch in.layout {
	case erofsPlain:
		in.pieces = []Piece{{start, in.size}}
	case erofsInline:
		if whole := in.size / block * block; whole > 0 {
			in.pieces = append(in.pieces, Piece{start, whole})
		}
		if rest := in.size % block; rest > 0 {
			in.pieces = append(in.pieces, Piece{in.end, rest})
		}
	case erofsChunks:
		return e.chunks(in)
	case erofsCompressed, erofsCompact:
		e.m.Compression, f.Compressed = e.compressor, true
		// mkfs writes the compressed blocks of a file one behind the other, unless
		// files share some; so the first and their number tell all.
		if e.features&(erofsFragments|erofsTailPacking) != 0 {
			f.Partial = true
			return nil
		}
		first, err := e.firstCompressed(in)
		if err != nil {
			return err
		}
		in.pieces = []Piece{{first * block, int64(in.u) * block}}
	default:
		return fmt.Errorf("its layout %d is not known", in.layout)
	}
	for _, p := range in.pieces {
		if !p.in(e.size) {
			return errors.New("its contents are outside the image")
		}
	}
	return nil
}

// chunks reads the table of a file that is cut into equal chunks.
func (e *erofs) chunks(in *erofsInode) error {
	bits := in.u & 31
	entry, at := int64(4), (in.end+3)&^3
	if in.u&32 != 0 {
		entry, at = 8, (in.end+7)&^7
	}
	if bits > 20 {
		return errors.New("its chunks are too large")
	}
	size := e.m.BlockSize << bits
	for off := int64(0); off < in.size; off += size {
		if e.budget--; e.budget < 0 {
			return errors.New("there are more chunks than there is room for")
		}
		b, err := e.read(at, entry)
		if err != nil {
			return err
		}
		at += entry
		n := binary.LittleEndian.Uint32(b[entry-4:])
		if n == 0xffffffff {
			continue // a hole
		}
		p := Piece{int64(n) * e.m.BlockSize, min(size, in.size-off)}
		if !p.in(e.size) {
			return errors.New("a chunk is outside the image")
		}
		in.pieces = append(in.pieces, p)
	}
	return nil
}

// firstCompressed is the block in which the compressed contents begin.
func (e *erofs) firstCompressed(in *erofsInode) (int64, error) {
	head := (in.end + 7) &^ 7
	b, err := e.read(head, 8)
	if err != nil {
		return 0, err
	}
	const (
		short    = 0x1 // indexes of 2 bytes, 16 to a pack
		anyBig   = 0x2 | 0x4
		idxStart = 8
	)
	advise := binary.LittleEndian.Uint16(b[4:])
	index := head + idxStart
	if in.layout == erofsCompressed {
		b, err := e.read(index+8+4, 4) // behind the padding, the block of the first entry
		if err != nil {
			return 0, err
		}
		return int64(binary.LittleEndian.Uint32(b)), nil
	}
	// Compact indexes come in packs, each ending with the number of the block
	// before its first cluster, or of that cluster itself if clusters may be big.
	pack := int64(8)
	clusters := (in.size-1)/e.m.BlockSize + 1
	if initial := (32 - index%32) / 4 & 7; advise&short != 0 && initial == 0 && clusters >= 16 {
		pack = 32
	}
	if b, err = e.read(index+pack-4, 4); err != nil {
		return 0, err
	}
	first := int64(binary.LittleEndian.Uint32(b))
	if advise&anyBig == 0 {
		first++
	}
	return first, nil
}

// names goes through the entries of a directory, whose blocks are never compressed.
func (e *erofs) names(dir *erofsInode, f func(name string, nid uint64, isDir bool) error) error {
	if !e.m.Files[dir.place].IsDir() {
		return errors.New("it is no directory")
	}
	if dir.layout != erofsPlain && dir.layout != erofsInline {
		return errors.New("a compressed directory is not supported")
	}
	for _, p := range dir.pieces {
		for p.Length > 0 {
			n := min(p.Length, e.m.BlockSize)
			b, err := e.read(p.Offset, n)
			if err != nil {
				return err
			}
			if err := e.namesIn(b, f); err != nil {
				return err
			}
			p.Offset += n
			p.Length -= n
		}
	}
	return nil
}

func (e *erofs) namesIn(b []byte, f func(name string, nid uint64, isDir bool) error) error {
	if len(b) < 12 {
		return errors.New("a directory is damaged")
	}
	count := int(binary.LittleEndian.Uint16(b[8:])) / 12
	if count < 1 || count*12 > len(b) {
		return errors.New("a directory is damaged")
	}
	for i := range count {
		entry := b[i*12:]
		from, to := int(binary.LittleEndian.Uint16(entry[8:])), len(b)
		if i+1 < count {
			to = int(binary.LittleEndian.Uint16(b[(i+1)*12+8:]))
		}
		if from > to || to > len(b) {
			return errors.New("a directory is damaged")
		}
		name := text(b[from:to])
		if name == "" || name == "." || name == ".." {
			continue
		}
		if err := f(name, binary.LittleEndian.Uint64(entry), entry[10] == 2); err != nil {
			return err
		}
	}
	return nil
}
