// SPDX-License-Identifier: Apache-2.0

package medium

import (
	"fmt"
	"path"
)

// A Kind is what a step does.
type Kind string

// The kinds of step. Those before Mark change or sync something.
const (
	DiskWrite Kind = "write disk"
	DiskSync  Kind = "flush disk"
	Create    Kind = "create"
	Mkdir     Kind = "mkdir"
	Write     Kind = "write"
	Sync      Kind = "fsync"
	Rename    Kind = "rename"
	Remove    Kind = "remove"
	DirSync   Kind = "fsync directory"
	// Mark is no step of the medium, but something to remember about the moment.
	Mark Kind = "mark"
	// Reset is a restart without a power cut: all that was written and not synced
	// is lost (a crash), or, after an orderly reboot, was synced before.
	Reset Kind = "reset"
	// DiskRead and Read are in no log, but can be made to fail.
	DiskRead Kind = "read disk"
	Read     Kind = "read"
)

// An Op is one step.
type Op struct {
	Kind Kind
	// Path is the disk, the file or the directory; To is the new name of a file
	// that is renamed, in the same directory.
	Path, To string
	Off      int64
	Data     []byte // of a write; a file's is its whole new content
	Note     string // of a mark

	dir, node int
}

func (o Op) String() string {
	switch o.Kind {
	case DiskWrite:
		return fmt.Sprintf("%s %s: %d bytes at %#x", o.Kind, o.Path, len(o.Data), o.Off)
	case Write:
		return fmt.Sprintf("%s %s: now %d bytes", o.Kind, o.Path, len(o.Data))
	case Rename:
		return fmt.Sprintf("%s %s to %s", o.Kind, o.Path, path.Base(o.To))
	case Mark, Reset:
		return fmt.Sprintf("%s %s", o.Kind, o.Note)
	}
	return fmt.Sprintf("%s %s", o.Kind, o.Path)
}

// apply makes the step in a state in which all before it was made.
func (s *State) apply(o Op) {
	switch o.Kind {
	case DiskWrite:
		s.Patch(o.Path, o.Off, o.Data)
	case Create, Mkdir:
		s.born(o)
		s.link(o)
	case Write:
		s.nodes[o.node] = &node{data: o.Data}
	case Rename, Remove:
		s.link(o)
	}
}

// born makes the node of a new file or directory, without a name.
func (s *State) born(o Op) {
	n := &node{}
	if o.Kind == Mkdir {
		n.entries = map[string]int{}
	}
	s.nodes[o.node] = n
	s.next = max(s.next, o.node+1)
}

// link makes a step's change of names.
func (s *State) link(o Op) {
	was := s.nodes[o.dir].entries
	now := make(map[string]int, len(was)+1)
	for name, id := range was {
		now[name] = id
	}
	switch o.Kind {
	case Create, Mkdir:
		now[path.Base(o.Path)] = o.node
	case Rename:
		if now[path.Base(o.Path)] == o.node {
			delete(now, path.Base(o.Path))
		}
		now[path.Base(o.To)] = o.node
	case Remove:
		delete(now, path.Base(o.Path))
	}
	s.nodes[o.dir] = &node{entries: now}
}

// crash is the note of a reset before which nothing was synced.
const crash = "by a crash"
