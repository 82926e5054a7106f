// SPDX-License-Identifier: Apache-2.0

package fallbackcopy

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl"
)

var errCut = errors.New("power cut")

// A rig is two copies in files, of which writes can be cut.
type rig struct {
	dir    string
	s      *Switch
	left   int // writes until the power fails; -1: never
	writes int
	lying  bool // takes writes and forgets them
}

type cutMedium struct {
	medium
	r *rig
}

func (m cutMedium) WriteAt(p []byte, off int64) (int, error) {
	if m.r.left == 0 {
		return 0, errCut
	}
	m.r.left--
	m.r.writes++
	if m.r.lying {
		return len(p), nil
	}
	return m.medium.WriteAt(p, off)
}

func copyOf(fill byte) []byte { return bytes.Repeat([]byte{fill}, 3*HeaderSize) }

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{dir: t.TempDir(), left: -1}
	r.put(t, "a", copyOf('a'))
	r.put(t, "b", copyOf('b'))
	r.s = New(r.path("a"), r.path("b"), &Header{r.path("data/headers/a")})
	if err := os.Mkdir(r.path("data"), 0o700); err != nil {
		t.Fatal(err)
	}
	open := r.s.open
	r.s.open = func(path string, write bool) (medium, error) {
		m, err := open(path, write)
		return cutMedium{m, r}, err
	}
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) put(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(r.path(name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// rom starts the first copy with a header, which must be whole.
func (r *rig) rom(t *testing.T) bootctl.Slot {
	t.Helper()
	for _, slot := range []string{"a", "b"} {
		b, err := os.ReadFile(r.path(slot))
		if err != nil {
			t.Fatal(err)
		}
		if Cleared(b[:HeaderSize]) {
			continue
		}
		if !bytes.Equal(b, copyOf(slot[0])) {
			t.Fatalf("the ROM starts copy %s, which is not whole", slot)
		}
		return bootctl.Slot(slot)
	}
	t.Fatal("the ROM finds nothing to start")
	return ""
}

// Each change is one write; cut before it, or right after, the ROM starts the
// old copy or the new one.
func TestSelect(t *testing.T) {
	r := newRig(t)
	for i, to := range []bootctl.Slot{"a", "b", "b", "a", "b", "a"} {
		before := r.rom(t)
		r.left, r.writes = 0, 0
		err := r.s.Select(to)
		if now := r.rom(t); now != before {
			t.Fatalf("step %d: cut, and the ROM starts %s, not %s", i, now, before)
		}
		if (err == nil) != (before == to) || err != nil && !errors.Is(err, errCut) {
			t.Fatalf("step %d: Select(%s) from %s = %v", i, to, before, err)
		}
		r.left = -1
		if err := r.s.Select(to); err != nil {
			t.Fatal(err)
		}
		if now := r.rom(t); now != to {
			t.Fatalf("step %d: the ROM starts %s, want %s", i, now, to)
		}
		if slot, err := r.s.Selected(); err != nil || slot != to {
			t.Errorf("step %d: Selected = %s, %v", i, slot, err)
		}
		if want := map[bool]int{true: 0, false: 1}[before == to]; r.writes != want {
			t.Errorf("step %d: %d writes, want %d", i, r.writes, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t)
	if err := r.s.Select("c"); err == nil {
		t.Error("slot c was taken")
	}
	for _, fill := range []byte{0xff, 0} {
		r.put(t, "b", copyOf(fill))
		if err := r.s.Select("b"); err == nil || r.writes > 0 {
			t.Errorf("the only header was cleared: %v", err)
		}
	}
	r.put(t, "a", make([]byte, 3*HeaderSize))
	if slot, err := r.s.Selected(); err == nil {
		t.Errorf("Selected = %s with two headers missing", slot)
	}

	// A kept header that is lost or damaged is not written.
	r = newRig(t)
	if err := r.s.Select("b"); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(r.s.header.Path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range kept {
		bad := bytes.Clone(kept)
		bad[i] ^= 1
		r.put(t, "data/headers/a", bad)
		if err := r.s.Select("a"); err == nil || !strings.Contains(err.Error(), "is not kept") {
			t.Fatalf("a header with byte %d changed was taken: %v", i, err)
		}
	}
	if err := r.s.header.Drop(); err != nil {
		t.Fatal(err)
	}
	if err := r.s.Select("a"); err == nil || r.rom(t) != "b" {
		t.Errorf("Select without a header = %v", err)
	}

	r = newRig(t)
	r.lying = true
	if err := r.s.Select("b"); err == nil || !strings.Contains(err.Error(), "failing") {
		t.Errorf("a medium that forgets was believed: %v", err)
	}
	// It cannot be kept: nothing is cleared.
	r = newRig(t)
	r.put(t, "data/headers", nil)
	if err := r.s.Select("b"); err == nil || r.writes > 0 {
		t.Errorf("a header that could not be kept was cleared: %v", err)
	}
}

// device is a node of a device.
type device struct {
	os.FileInfo
	mode os.FileMode
	st   syscall.Stat_t
}

func (d *device) Mode() os.FileMode { return d.mode }
func (d *device) Sys() any          { return &d.st }

// A sector of raw flash behind mtdblock is not written alone: its block is erased
// first, with the rest of the copy in it, and then written from its beginning.
func TestFlashIsRefused(t *testing.T) {
	for major, want := range map[uint32]bool{mtdBlockMajor: true, 179: false} {
		d := &device{mode: os.ModeDevice}
		d.st.Rdev = unix.Mkdev(major, 0)
		if hidesErasing(d) != want {
			t.Errorf("hidesErasing(%d:0) = %v", major, !want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(make([]byte, HeaderSize+32))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := decode(b); got != nil && (len(got) != HeaderSize || !bytes.Equal(got, b[:HeaderSize])) {
			t.Errorf("decode = %x", got)
		}
	})
}
