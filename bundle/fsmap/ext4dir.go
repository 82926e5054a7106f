// SPDX-License-Identifier: Apache-2.0

package fsmap

import (
	"context"
	"encoding/binary"
	"fmt"
)

// maxPath is the longest path that is put together; no program opens a longer one.
const maxPath = 4096

// name gives paths to the inodes, from the root down. A file with several
// names gets the first that is found.
func (e *ext4) name(ctx context.Context) {
	root := e.files[ext4RootInode]
	if root == nil || !root.IsDir() {
		return
	}
	root.Path = "/"
	for todo := []*ext4Inode{root}; len(todo) > 0 && ctx.Err() == nil; todo = todo[1:] {
		dir := todo[0]
		if err := e.entries(dir, func(ino uint64, name string) {
			in := e.files[ino]
			if in == nil || in.Path != "" {
				return
			}
			path := dir.Path + "/" + name
			if dir == root {
				path = "/" + name
			}
			if len(path) > maxPath {
				return
			}
			in.Path = path
			if in.IsDir() {
				todo = append(todo, in)
			}
		}); err != nil && e.m.Incomplete == "" {
			e.m.Incomplete = fmt.Sprintf("directory %s: %v", dir.Path, err)
		}
	}
}

// entries calls f for each name in a directory. An index of names hides in
// entries that look unused, so it needs no care.
func (e *ext4) entries(dir *ext4Inode, f func(ino uint64, name string)) error {
	for _, r := range dir.runs {
		for i := range r.blocks {
			if err := e.spend(); err != nil {
				return err
			}
			b, err := e.read((r.start+i)*e.BlockSize, e.BlockSize)
			if err != nil {
				return err
			}
			for len(b) >= 12 {
				ino := binary.LittleEndian.Uint32(b)
				n, length := int(binary.LittleEndian.Uint16(b[4:])), int(b[6])
				if n == 0 || n == 0xffff {
					n = 65536 // the whole of the largest block
				}
				if n < 8 || n > len(b) || 8+length > n {
					return fmt.Errorf("an entry of block %d is damaged", r.start+i)
				}
				if name := text(b[8:][:length]); ino != 0 && name != "" && name != "." && name != ".." {
					f(uint64(ino), name)
				}
				b = b[n:]
			}
		}
	}
	return nil
}

// emit turns inodes into the files and extents of the map.
func (e *ext4) emit() {
	for _, ino := range e.order {
		in := e.files[ino]
		area, file := Tree, -1
		switch {
		case ino == ext4JournalInode:
			area = Journal
		case in.Path != "":
			area, file = Contents, len(e.m.Files)
			if in.IsDir() {
				area = Directory
			}
			e.m.Files = append(e.m.Files, in.File)
		}
		for _, r := range in.runs {
			e.add(area, r.start, r.blocks, file)
		}
		for _, b := range in.tree {
			e.add(Tree, b, 1, file)
		}
	}
	e.files, e.order = nil, nil
}
