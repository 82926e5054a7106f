// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/updaterd/internal/proof/medium"
)

// A mutation is a fault in the order of steps that the proof has to find.
type mutation struct {
	name string
	// make changes the log of an update.
	make func(log []medium.Op) []medium.Op
	want string // in one of the faults
}

func drop(which func(o medium.Op) bool) func([]medium.Op) []medium.Op {
	return func(log []medium.Op) []medium.Op { return slices.DeleteFunc(log, which) }
}

func isSlot(o medium.Op) bool { return strings.HasPrefix(o.Path, "/dev/") && o.Path != envDisk }

// nth finds the n-th step (1, 2, …) that is so.
func nth(log []medium.Op, n int, is func(medium.Op) bool) int {
	for i, o := range log {
		if is(o) {
			if n--; n == 0 {
				return i
			}
		}
	}
	panic("no such step")
}

func envWrite(o medium.Op) bool { return o.Kind == medium.DiskWrite && o.Path == envDisk }

// move takes n steps at from to where they are made before the step at to.
func move(log []medium.Op, from, n, to int) []medium.Op {
	some := slices.Clone(log[from : from+n])
	log = slices.Delete(log, from, from+n)
	if to > from {
		to -= n
	}
	return slices.Insert(log, to, some...)
}

// In an update, the first two writes of the environment mark the target bad, the
// third is commit point 1.
var mutations = []mutation{
	{"no fsync before the rename", drop(func(o medium.Op) bool { return o.Kind == medium.Sync }), "damaged a record"},
	{"no fsync of the directory after it", drop(func(o medium.Op) bool { return o.Kind == medium.DirSync && o.Path == dataDir }), "results for 1 releases"},
	{"directory made without fsync", drop(func(o medium.Op) bool {
		return o.Kind == medium.DirSync && (o.Path == "/" || o.Path == "/data")
	}), "results for 1 releases"},
	{"environment flipped before the read-back", func(log []medium.Op) []medium.Op {
		return move(log, nth(log, 3, envWrite), 2, nth(log, 1, func(o medium.Op) bool { return o.Kind == medium.DiskSync && o.Path == "/dev/bootloader.b" })+1)
	}, "3: "},
	{"flipped before the first block is flushed", func(log []medium.Op) []medium.Op {
		return move(log, nth(log, 3, envWrite), 2, nth(log, 3, func(o medium.Op) bool { return o.Kind == medium.DiskSync && o.Path == "/dev/bootloader.b" }))
	}, "3: "},
	{"both copies written in one step", func(log []medium.Op) []medium.Op {
		return slices.Delete(log, nth(log, 1, envWrite)+1, nth(log, 1, envWrite)+2)
	}, "8: "},
	{"first block written first", func(log []medium.Op) []medium.Op {
		first := func(o medium.Op) bool { return o.Kind == medium.DiskWrite && o.Path == "/dev/rootfs.b" && o.Off == 0 }
		return move(log, nth(log, 2, first), 2, nth(log, 1, first)+2) // the first write clears it
	}, "2: "},
	{"mark-bad missing", func(log []medium.Op) []medium.Op {
		return slices.Delete(log, nth(log, 1, envWrite), nth(log, 2, envWrite)+2)
	}, "2: "},
	{"mark-bad in one copy only", func(log []medium.Op) []medium.Op {
		return slices.Delete(log, nth(log, 2, envWrite), nth(log, 2, envWrite)+2)
	}, "2: "},
	{"mark-bad after the first block", func(log []medium.Op) []medium.Op {
		return move(log, nth(log, 1, isSlot), 1, nth(log, 1, envWrite))
	}, "2: "},
	{"slots ignore flushes", drop(func(o medium.Op) bool { return o.Kind == medium.DiskSync && isSlot(o) }), "2: "},
	{"the environment's disk ignores flushes", drop(func(o medium.Op) bool { return o.Kind == medium.DiskSync && o.Path == envDisk }), "8: "},
	{"confirmed before it was judged", func(log []medium.Op) []medium.Op {
		judged := func(o medium.Op) bool { return o.Kind == medium.Mark && strings.HasPrefix(o.Note, "judged") }
		return move(log, nth(log, 1, judged), 1, len(log))
	}, "4: "},
	{"floor raised before commit point 2", func(log []medium.Op) []medium.Op {
		judged := nth(log, 1, func(o medium.Op) bool { return o.Kind == medium.Mark && strings.HasPrefix(o.Note, "judged") })
		floors := nth(log, 1, func(o medium.Op) bool { return o.Kind == medium.Create && strings.Contains(o.Path, "floors.json") })
		return move(log, floors, 5, judged)
	}, "7: "},
	{"data migrated before commit point 2", func(log []medium.Op) []medium.Op {
		judged := nth(log, 1, func(o medium.Op) bool { return o.Kind == medium.Mark && strings.HasPrefix(o.Note, "judged") })
		form := nth(log, 1, func(o medium.Op) bool { return strings.HasPrefix(o.Path, filepath.Dir(formFile)) })
		return move(log, form, len(log)-form, judged+1)
	}, "9: "},
	{"data migrated before the second copy says so", func(log []medium.Op) []medium.Op {
		judged := nth(log, 1, func(o medium.Op) bool { return o.Kind == medium.Mark && strings.HasPrefix(o.Note, "judged") })
		commit := judged + nth(log[judged:], 1, envWrite)
		form := nth(log, 1, func(o medium.Op) bool { return strings.HasPrefix(o.Path, filepath.Dir(formFile)) })
		return move(log, form, len(log)-form, commit+2)
	}, "9: "},
	{"the migration that is due is not on record", drop(func(o medium.Op) bool {
		return strings.Contains(o.Path+o.To, "data.json")
	}), "9: "},
}

// TestTheProofCanFail makes faults on purpose. A proof that does not find them
// would prove nothing.
func TestTheProofCanFail(t *testing.T) {
	t.Parallel()
	b := small
	b.lock = t.TempDir() + "/lock"
	sc := scenarios[1] // streamed: the target holds another system
	start, log := b.recorded(t, sc)
	found := 0
	for i, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			points, _ := b.cuts(start, m.make(slices.Clone(log)), uint64(i), 0)
			wanted := func(fault string) bool { return strings.Contains(fault, m.want) }
			tr := trial{board: b, T: t, sc: sc, until: func(faults []string) bool { return slices.ContainsFunc(faults, wanted) }}
			tr.try(points)
			if slices.ContainsFunc(tr.bad, func(v violation) bool { return slices.ContainsFunc(v.faults, wanted) }) {
				found++
				return
			}
			t.Errorf("not found in %d states: %v", len(points), tr.bad)
		})
	}
	fmt.Printf("faults in the order of steps: %d of %d found\n", found, len(mutations))
}
