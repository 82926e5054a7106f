// SPDX-License-Identifier: Apache-2.0

package medium

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bootctl/durable"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// after lists what every cut in a log may leave of a file; "-" is no file.
func after(start *State, log []Op, path string) []string {
	found := map[string]bool{}
	r := NewReplay(start)
	for _, o := range log {
		r.Step(o)
		for s := range r.Cuts(rand.New(rand.NewPCG(1, 1)), Rules{Limit: 1000}) {
			content, ok := s.File(path)
			if !ok {
				content = []byte("-")
			}
			found[strings.ReplaceAll(string(content), "\x00", "0")] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func TestReplacedFileIsOldOrNew(t *testing.T) {
	m := New(NewState())
	must(t, durable.WriteFile(m, "/f", []byte("old"), 0o600))
	if got := after(NewState(), m.Log(), "/f"); !slices.Equal(got, []string{"-", "old"}) {
		t.Errorf("a new file may be %q", got)
	}
	start := m.State()
	m = New(start)
	must(t, durable.WriteFile(m, "/f", []byte("newer"), 0o600))
	if got := after(start, m.Log(), "/f"); !slices.Equal(got, []string{"newer", "old"}) {
		t.Errorf("a replaced file may be %q", got)
	}
	if files := m.State().Files(); !slices.Equal(files, []string{"/f"}) {
		t.Errorf("files are %q", files)
	}
}

// Without the syncs it may be anything: this is what the syncs are for.
func TestUnsyncedFile(t *testing.T) {
	m := New(NewState())
	must(t, durable.WriteFile(m, "/f", []byte("new"), 0o600))
	log := slices.DeleteFunc(m.Log(), func(o Op) bool { return o.Kind == Sync })
	if got := after(NewState(), log, "/f"); !slices.Equal(got, []string{"", "-", "000", "new"}) {
		t.Errorf("a file that was renamed before it was synced may be %q", got)
	}
}

func TestDirectoryThatWasNotSynced(t *testing.T) {
	m := New(NewState())
	must(t, m.Mkdir("/d", 0o700))
	must(t, durable.WriteFile(m, "/d/f", []byte("x"), 0o600))
	last := NewReplay(NewState())
	for _, o := range m.Log() {
		last.Step(o)
	}
	var files []string
	for s := range last.Cuts(rand.New(rand.NewPCG(1, 1)), Rules{Limit: 10}) {
		files = append(files, fmt.Sprint(s.Files()))
	}
	if !slices.Equal(files, []string{"[]", "[/d/f]"}) {
		t.Errorf("a cut leaves %q", files)
	}
}

// Two writes of two sectors, of which the second overlaps the first, tear in
// every way.
func TestTornWrites(t *testing.T) {
	start := NewState()
	start.AddDisk("d", make([]byte, page))
	m := New(start)
	d, err := m.Disk("d")
	must(t, err)
	write := func(c byte, sector, n int) {
		_, err := d.WriteAt(bytes.Repeat([]byte{c}, n*Sector), int64(sector*Sector))
		must(t, err)
	}
	write('a', 0, 2)
	write('b', 1, 2)
	r := NewReplay(start)
	for _, o := range m.Log() {
		r.Step(o)
	}
	found := map[string]bool{}
	for s := range r.Cuts(rand.New(rand.NewPCG(1, 1)), Rules{Limit: 100}) {
		b := s.Disk("d")
		found[string([]byte{b[0] | '0', b[Sector] | '0', b[2*Sector] | '0', b[3*Sector] | '0'})] = true
	}
	// Sector 0 is old or a, 1 old, a or b, 2 old or b.
	if len(found) != 2*3*2 || !found["qr00"] || !found["0rr0"] || !found["qqr0"] {
		t.Errorf("%d states: %v", len(found), slices.Sorted(maps.Keys(found)))
	}
	must(t, d.Sync())
	r.Step(Op{Kind: DiskSync, Path: "d"})
	if n := len(slices.Collect(r.Cuts(rand.New(rand.NewPCG(1, 1)), Rules{Limit: 100}))); n != 1 {
		t.Errorf("%d states after a flush", n)
	}
	large := NewReplay(start)
	for _, o := range m.Log()[:2] {
		large.Step(o)
	}
	if n := len(slices.Collect(large.Cuts(rand.New(rand.NewPCG(1, 1)), Rules{Limit: 100, Large: true}))); n > 4 {
		t.Errorf("%d states with sectors of 4 KiB", n)
	}
}

// A sample is the same each time, and has the ends in it.
func TestSample(t *testing.T) {
	start := NewState()
	start.AddDisk("d", make([]byte, 16*page))
	m := New(start)
	d, err := m.Disk("d")
	must(t, err)
	for i := range int64(16) {
		_, err := d.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, page), i*page)
		must(t, err)
	}
	sample := func() (sums []string) {
		r := NewReplay(start)
		for _, o := range m.Log() {
			r.Step(o)
		}
		for s := range r.Cuts(rand.New(rand.NewPCG(5, 5)), Rules{Limit: 20}) {
			sums = append(sums, fmt.Sprint(s.Sum()))
		}
		return sums
	}
	first := sample()
	if len(first) != 20 || !slices.Equal(first, sample()) {
		t.Errorf("%d states, the same again: %v", len(first), slices.Equal(first, sample()))
	}
	for _, s := range []*State{start, m.State()} {
		if !slices.Contains(first, fmt.Sprint(s.Sum())) {
			t.Error("the sample has not nothing, or not all, of what was written")
		}
	}
}

func TestCrashAndReboot(t *testing.T) {
	for orderly, want := range map[bool]int{true: 1, false: 0} {
		m := New(NewState())
		f, err := m.Create("/f", 0o600)
		must(t, err)
		_, err = f.Write([]byte("x"))
		must(t, err)
		if m.Restart(orderly); len(m.State().Files()) != want {
			t.Errorf("after a restart (orderly: %v) files are %q", orderly, m.State().Files())
		}
	}
}
