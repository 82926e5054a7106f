// SPDX-License-Identifier: Apache-2.0

package medium

import (
	"encoding/binary"
	"hash/crc32"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
)

// Sector is the unit in which a write can tear.
const Sector = 512

// page is the unit in which states share what is the same in them.
const page = 4096

// A Page is 4 KiB of a disk. It is never changed, only replaced.
type Page struct {
	Data [page]byte
	sum  uint64
}

// seed makes sums, which are good for this process.
var seed = maphash.MakeSeed()

func newPage(b []byte) *Page {
	p := &Page{Data: [page]byte(b)}
	p.sum = maphash.Bytes(seed, p.Data[:])
	return p
}

// A State is all that is on the media. It is a value: what changes it makes a
// new one first, with Clone, and shares what stays the same.
type State struct {
	disks map[string][]*Page
	nodes map[int]*node
	next  int // number of the next node
}

// A node is a file or a directory. It is never changed, only replaced.
type node struct {
	entries map[string]int // nil for a file
	data    []byte
}

const root = 1

// NewState is an empty file system without disks.
func NewState() *State {
	return &State{disks: map[string][]*Page{}, nodes: map[int]*node{root: {entries: map[string]int{}}}, next: root + 1}
}

// Clone is a copy that can be changed on its own.
func (s *State) Clone() *State {
	c := &State{disks: make(map[string][]*Page, len(s.disks)), nodes: maps.Clone(s.nodes), next: s.next}
	for name, pages := range s.disks {
		c.disks[name] = slices.Clone(pages)
	}
	return c
}

// AddDisk adds a disk, whose content is whole pages of 4 KiB.
func (s *State) AddDisk(name string, content []byte) {
	if len(content)%page != 0 {
		panic("medium: a disk is whole pages")
	}
	pages := make([]*Page, len(content)/page)
	for i := range pages {
		pages[i] = newPage(content[i*page : (i+1)*page])
	}
	s.disks[name] = pages
}

// Disk is the content of a disk.
func (s *State) Disk(name string) []byte {
	var b []byte
	for _, p := range s.disks[name] {
		b = append(b, p.Data[:]...)
	}
	return b
}

// Pages are the pages of a disk; the same content in two states is mostly the
// same page.
func (s *State) Pages(name string) []*Page { return s.disks[name] }

// Patch changes bytes of a disk.
func (s *State) Patch(name string, off int64, b []byte) {
	pages := s.disks[name]
	for len(b) > 0 {
		i, at := int(off/page), int(off%page)
		data := pages[i].Data
		n := copy(data[at:], b)
		pages[i] = newPage(data[:])
		off, b = off+int64(n), b[n:]
	}
}

// File is the content of the file at path, if there is one.
func (s *State) File(path string) (content []byte, ok bool) {
	n := s.nodes[s.find(path)]
	if n == nil || n.entries != nil {
		return nil, false
	}
	return n.data, true
}

// SetFile replaces the content of the file at path, which must be there.
func (s *State) SetFile(path string, content []byte) {
	id := s.find(path)
	if id == 0 {
		panic("medium: no file " + path)
	}
	s.nodes[id] = &node{data: content}
}

// Files lists the paths of all files, sorted.
func (s *State) Files() []string {
	var list []string
	s.walk("", root, func(path string, n *node) {
		if n.entries == nil {
			list = append(list, path)
		}
	})
	return list
}

func (s *State) walk(path string, id int, visit func(string, *node)) {
	n := s.nodes[id]
	visit(path, n)
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		s.walk(path+"/"+name, n.entries[name], visit)
	}
}

// find is the node at an absolute path, 0 if there is none.
func (s *State) find(path string) int {
	id := root
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if name == "" {
			continue
		}
		n := s.nodes[id]
		if n.entries == nil {
			return 0
		}
		if id = n.entries[name]; id == 0 {
			return 0
		}
	}
	return id
}

// Sum is the same for states that hold the same, within this process. What a
// write has not finished yet counts for nothing: nobody reads temporary files
// (".NAME.tmp").
func (s *State) Sum() [2]uint64 {
	var b []byte
	put := func(text string) {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(text)))
		b = append(b, text...)
	}
	for _, name := range slices.Sorted(maps.Keys(s.disks)) {
		put(name)
		for _, p := range s.disks[name] {
			b = binary.LittleEndian.AppendUint64(b, p.sum)
		}
	}
	s.walk("", root, func(path string, n *node) {
		if name := path[strings.LastIndexByte(path, '/')+1:]; strings.HasPrefix(name, ".") {
			return
		}
		put(path)
		if n.entries == nil {
			put(string(n.data))
		}
	})
	return [2]uint64{maphash.Bytes(seed, b), uint64(crc32.ChecksumIEEE(b))}
}
