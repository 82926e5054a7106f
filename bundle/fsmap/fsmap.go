// SPDX-License-Identifier: Apache-2.0

package fsmap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/updaterd/updaterd/bundle/fsmap/ext4super"
)

// The types of file systems that are recognised.
const (
	Ext4     = "ext4" // ext2 and ext3 too
	EROFS    = "erofs"
	SquashFS = "squashfs"
)

// ErrUnknown is the error for an image without a file system that is known here.
var ErrUnknown = errors.New("no ext4, EROFS or squashfs file system begins here")

// An Area is what a piece of an image is used for.
type Area uint8

// The areas. Unused is what no other area claims.
const (
	Unused Area = iota
	Contents
	Directory
	Inodes
	Bitmaps
	Super // superblocks and group descriptors, with what is reserved for them
	Journal
	Tree     // extent trees and attribute blocks
	Metadata // of a file system in which it has no fixed places
	Fragments
)

// Areas is how many areas there are.
const Areas = int(Fragments) + 1

var areaNames = [...]string{
	Unused: "unused blocks", Contents: "file contents", Directory: "directories", Inodes: "inode tables",
	Bitmaps: "bitmaps", Super: "superblock and descriptors", Journal: "journal", Tree: "extent trees and attributes",
	Metadata: "metadata", Fragments: "small files packed together",
}

func (a Area) String() string { return areaNames[a] }

// A Map is what was found in an image.
type Map struct {
	Type string
	// UUID is empty if the file system has none.
	UUID      string
	BlockSize int64
	// Size is what the file system says it takes of the image.
	Size int64
	// Compression names the compressor of the file system, "" if there is none.
	Compression string
	// Created is when the file system was made, zero if that is not recorded.
	Created time.Time
	// Ext4 has what only ext4 has, nil for others.
	Ext4 *ext4super.Superblock
	// Files are sorted by path; a file with several names is there once.
	Files []File
	// Extents are sorted by offset, do not overlap, and leave out what is unused.
	Extents []Extent
	// Incomplete says why Files and Extents are missing or partial, "" if they are not.
	Incomplete string
}

// A File is an inode with a name.
type File struct {
	Path                string // with a leading slash
	Inode               uint64
	Mode                uint16 // as in st_mode
	UID, GID            uint32
	Size                int64
	MTime, CTime, ATime int64 // nanoseconds since 1970
	CRTime              int64 // 0 if not recorded
	// Pieces are where the contents are in the image, in the order of the file.
	// Small files may have none.
	Pieces []Piece
	// Partial: a part of the contents, or all, is packed together with other files'.
	Partial bool
	// Compressed: the pieces hold the contents as the file system compressed them.
	Compressed bool
}

// A Piece is a range of an image.
type Piece struct{ Offset, Length int64 }

// IsDir and IsRegular tell the two kinds of file that have contents of interest.
func (f *File) IsDir() bool     { return f.Mode&0xf000 == 0x4000 }
func (f *File) IsRegular() bool { return f.Mode&0xf000 == 0x8000 }

// An Extent is a range of an image with one use. File is its place in
// Map.Files, -1 if it belongs to none.
type Extent struct {
	Piece
	Area Area
	File int
}

// Name is the path of an extent's file, or else its area.
func (m *Map) Name(e Extent) string {
	if e.File >= 0 {
		return m.Files[e.File].Path
	}
	return e.Area.String()
}

// Read finds out what is in an image. The error is ErrUnknown if there is no
// file system that is known. If there is one that cannot be read to the end,
// Incomplete says why and the map has what is known.
func Read(ctx context.Context, r io.ReaderAt, size int64) (*Map, error) {
	for _, read := range []func(context.Context, *image) (*Map, error){readExt4, readSquashFS, readEROFS} {
		m, err := read(ctx, &image{r, size})
		if errors.Is(err, ErrUnknown) {
			continue
		}
		if err == nil {
			m.finish(size)
		}
		return m, err
	}
	return nil, ErrUnknown
}

// finish sorts, drops what overlaps or lies outside, and adds the files' pieces.
func (m *Map) finish(size int64) {
	order := make([]int, len(m.Files)) // old place -> new place
	places := make([]int, len(m.Files))
	for i := range places {
		places[i] = i
	}
	slices.SortStableFunc(places, func(a, b int) int { return cmp.Compare(m.Files[a].Path, m.Files[b].Path) })
	files := make([]File, len(m.Files))
	for to, from := range places {
		files[to], order[from] = m.Files[from], to
	}
	m.Files = files
	byPlace := make([]int, len(m.Extents))
	for i := range m.Extents {
		byPlace[i] = i
		if e := &m.Extents[i]; e.File >= 0 {
			e.File = order[e.File]
		}
	}
	slices.SortStableFunc(byPlace, func(a, b int) int { return cmp.Compare(m.Extents[a].Offset, m.Extents[b].Offset) })
	var kept []Extent
	keep := make([]bool, len(m.Extents))
	end := int64(0)
	for _, i := range byPlace {
		if e := m.Extents[i]; e.in(size) && e.Offset >= end {
			end, keep[i] = e.Offset+e.Length, true
			kept = append(kept, e)
		}
	}
	for i, e := range m.Extents { // which are in the order of the files still
		if keep[i] && e.Area == Contents && e.File >= 0 {
			m.Files[e.File].Pieces = append(m.Files[e.File].Pieces, e.Piece)
		}
	}
	m.Extents = kept
	if m.Type != Ext4 && len(m.Files) > 0 {
		m.fillGaps(min(m.Size, size))
	}
}

// fillGaps calls metadata what is not yet claimed: EROFS and squashfs leave
// nothing unused.
func (m *Map) fillGaps(size int64) {
	var all []Extent
	end := int64(0)
	gap := func(to int64) {
		if to > end {
			all = append(all, Extent{Piece{end, to - end}, Metadata, -1})
		}
	}
	for _, e := range m.Extents {
		gap(e.Offset)
		all = append(all, e)
		end = e.Offset + e.Length
	}
	gap(size)
	m.Extents = all
}

func (p Piece) in(size int64) bool {
	return p.Offset >= 0 && p.Length > 0 && p.Offset <= size && p.Length <= size-p.Offset
}

// An image is read at offsets that may be nonsense.
type image struct {
	r    io.ReaderAt
	size int64
}

// maxRead is the most that is read at once.
const maxRead = 16 << 20

func (m *image) read(off, n int64) ([]byte, error) {
	if !(Piece{off, n}).in(m.size) || n > maxRead {
		return nil, fmt.Errorf("%d bytes at %d are not inside the image", n, off)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(m.r, off, n), b); err != nil {
		return nil, fmt.Errorf("read at %d: %w", off, err)
	}
	return b, nil
}

func uuid(b []byte) string {
	if len(b) != 16 || [16]byte(b) == [16]byte{} {
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
