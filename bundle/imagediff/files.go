// SPDX-License-Identifier: Apache-2.0

package imagediff

import (
	"slices"

	"github.com/updaterd/updaterd/bundle/fsmap"
)

// judge tells what became of each file of the new image.
func (c *comparison) judge() {
	byPath := make(map[string]int)
	byContents := make(map[uint64]int)
	for i := range c.was.fs.Files {
		f := &c.was.fs.Files[i]
		byPath[f.Path] = i
		if h := c.was.contents[i]; h != 0 && f.IsRegular() {
			if _, twice := byContents[h]; !twice && !f.Partial {
				byContents[h] = i
			}
		}
	}
	inNew := make(map[string]int)
	for i := range c.is.fs.Files {
		inNew[c.is.fs.Files[i].Path] = i
	}
	c.files = make([]FileCost, len(c.is.fs.Files))
	for i := range c.files {
		f := &c.is.fs.Files[i]
		o := &c.owners[areas+i]
		fc := &c.files[i]
		*fc = FileCost{Path: f.Path, Cost: int64(o.cost + 0.5), Size: f.Size, Blocks: o.Blocks, directory: f.IsDir(), new: f}
		h := c.is.contents[i]
		fc.Change = FileNew
		if k, there := byPath[f.Path]; there {
			fc.old = &c.was.fs.Files[k]
			fc.Change = change(fc.old, f, c.was.contents[k] == h)
		}
		if from, known := byContents[h]; known && (fc.Change == FileNew || fc.Change == FileChanged) && f.IsRegular() && c.was.fs.Files[from].Size == f.Size {
			fc.From, fc.Change = c.was.fs.Files[from].Path, FileRenamed
			if k, there := inNew[fc.From]; there && c.is.contents[k] == h {
				fc.Change = FileCopied
			}
		}
		if (fc.Change == FileChanged || fc.Change == FileNew) && o.Blocks.Changed > 0 && f.IsRegular() && !f.Compressed && !f.Partial {
			fc.Contents = contents(c.is, f, fc.Cost)
		}
	}
}

// change compares a file that both images have.
func change(old, f *fsmap.File, sameContents bool) string {
	switch {
	case !sameContents || old.Size != f.Size, f.Partial && old.MTime != f.MTime:
		return FileChanged
	case !sameOwner(old, f) || old.MTime != f.MTime || old.CTime != f.CTime || old.ATime != f.ATime || old.CRTime != f.CRTime:
		if slices.Equal(old.Pieces, f.Pieces) {
			return FileMetadata
		}
		return FileMoved
	case !slices.Equal(old.Pieces, f.Pieces):
		return FileMoved
	}
	return FileUnchanged
}

func sameOwner(a, b *fsmap.File) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID
}
