// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// A flash is a device with a volatile write cache whose power can be cut.
type flash struct {
	name    string
	stable  []byte
	cache   []pending // not yet flushed
	log     *[]string
	writes  int
	cutAt   int // the write at which the power goes, 0 = never
	dead    bool
	corrupt func(off int64, p []byte) // what reading does to bytes
	fail    func(op string, off int64) error
}

type pending struct {
	off int64
	b   []byte
}

var errPower = errors.New("power cut")

func (m *flash) note(s string) {
	if m.log != nil {
		*m.log = append(*m.log, m.name+" "+s)
	}
}

func (m *flash) current() []byte {
	b := bytes.Clone(m.stable)
	for _, w := range m.cache {
		copy(b[w.off:], w.b)
	}
	return b
}

func (m *flash) ReadAt(p []byte, off int64) (int, error) {
	if m.dead {
		return 0, errPower
	}
	if m.fail != nil {
		if err := m.fail("read", off); err != nil {
			return 0, err
		}
	}
	if off+int64(len(p)) > int64(len(m.stable)) {
		return 0, io.ErrUnexpectedEOF
	}
	copy(p, m.stable[off:])
	for _, w := range m.cache {
		for i, c := range w.b {
			if at := w.off + int64(i) - off; at >= 0 && at < int64(len(p)) {
				p[at] = c
			}
		}
	}
	if m.corrupt != nil {
		m.corrupt(off, p)
	}
	return len(p), nil
}

func (m *flash) WriteAt(p []byte, off int64) (int, error) {
	if m.writes++; m.writes == m.cutAt {
		// What is on its way when the power goes may be written in part.
		m.cache = append(m.cache, pending{off, bytes.Clone(p[:len(p)/2])})
		m.dead = true
	}
	if m.dead {
		return 0, errPower
	}
	if m.fail != nil {
		if err := m.fail("write", off); err != nil {
			return 0, err
		}
	}
	what := "body"
	if off == 0 {
		what = "first"
		if bytes.Equal(p, make([]byte, len(p))) {
			what = "clear"
		}
	}
	m.note(what)
	m.cache = append(m.cache, pending{off, bytes.Clone(p)})
	return len(p), nil
}

func (m *flash) Sync() error {
	if m.writes++; m.writes == m.cutAt {
		m.dead = true
	}
	if m.dead {
		return errPower
	}
	if m.fail != nil {
		if err := m.fail("sync", 0); err != nil {
			return err
		}
	}
	m.note("sync")
	m.stable, m.cache = m.current(), nil
	return nil
}

func (m *flash) Size() int64  { return int64(len(m.stable)) }
func (m *flash) Close() error { return nil }

// restore gives the power back, after a random part of the cache got through.
func (m *flash) restore(rng *rand.Rand) {
	for _, w := range m.cache {
		if rng.IntN(2) == 0 {
			copy(m.stable[w.off:], w.b)
		}
	}
	m.cache, m.dead, m.cutAt, m.writes = nil, false, 0, 0
}

// Chunk 0 has the same second chance as the others, also if a run before this one
// wrote it, so that only its first block was missing when the slot was looked at.
func TestChunkZeroIsWrittenAgain(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	r := newRig(t, build(t, nil, "rootfs", v1, v2), v1, nil)
	m := &flash{}
	r.onMedium(m)
	m.fail = func(op string, off int64) error {
		if op == "write" && off == 0 {
			return syscall.EIO
		}
		return nil
	}
	rel := r.inspect(ModeStream)
	if _, err := r.run(t.Context(), rel, quiet); err == nil {
		t.Fatal("the first block was written")
	}
	syncs := 0
	m.fail = func(op string, _ int64) error {
		if op == "sync" {
			if syncs++; syncs == 1 {
				m.stable[firstBlock+5] ^= 1
			}
		}
		return nil
	}
	if _, err := r.run(t.Context(), rel, quiet); err != nil || !bytes.Equal(m.stable[:len(v2)], v2) {
		t.Errorf("run again = %v", err)
	}
}

// onMedium makes the rig's target slot a medium.
func (r *rig) onMedium(m *flash) {
	if m.stable == nil {
		m.stable = r.target()
	}
	r.engine.open = func(path string, write bool) (device, error) {
		if path == r.o.Slots["rootfs"]["b"] {
			return m, nil
		}
		return openDevice(path, write)
	}
}

// The power is cut at each write and flush in turn; with it goes a random part
// of what was not flushed. Never is the first block that of a system unless all
// of that system is there, and afterwards the install always comes to its end.
func TestPowerCutAtEachWrite(t *testing.T) { cutAtEachWrite(t, nil) }

// Of an encrypted bundle the first block is not kept beside the slot: it is made again.
func TestPowerCutAtEachWriteEncrypted(t *testing.T) { cutAtEachWrite(t, sealed) }

func cutAtEachWrite(t *testing.T, change func(*bundle.Spec)) {
	t.Helper()
	t.Parallel()
	v1, v2 := systems()
	data := build(t, change, "rootfs", v1, v2)
	for _, mode := range modes {
		for cut, finished := 1, false; !finished; cut++ {
			for seed := range map[string]uint64{ModeStore: 1, ModeStream: 2}[mode] {
				rng := rand.New(rand.NewPCG(seed, uint64(cut)))
				r := newSealedRig(t, data, v1, v1)
				m := &flash{cutAt: cut}
				r.onMedium(m)
				rel := r.inspect(mode)
				_, err := r.run(t.Context(), rel, quiet)
				if finished = err == nil; finished {
					continue
				}
				if !errors.Is(err, errPower) {
					t.Fatalf("%s, cut at %d: %v", mode, cut, err)
				}
				m.restore(rng)
				checkFirstBlock(t, m.stable, v1, v2)
				r.restart()
				r.onMedium(m)
				if rel, err = r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{}); err != nil {
					t.Fatal(err)
				}
				if _, err = r.run(t.Context(), rel, quiet); err != nil {
					t.Fatalf("%s, after a cut at %d: %v", mode, cut, err)
				}
				if got := m.current()[:len(v2)]; !bytes.Equal(got, v2) || len(m.cache) > 0 {
					t.Fatalf("%s, after a cut at %d: slot is not what was installed, or not flushed", mode, cut)
				}
			}
			if cut > 200 {
				t.Fatal("no run survives")
			}
			if finished && cut < 14 {
				t.Fatalf("%s: a run has only %d writes; the test proves nothing", mode, cut-1)
			}
		}
	}
}

func checkFirstBlock(t *testing.T, slot, v1, v2 []byte) {
	t.Helper()
	for name, image := range map[string][]byte{"old": v1, "new": v2} {
		// Half a first block is none: compare the half that a torn write leaves.
		if bytes.Equal(slot[:firstBlock], image[:firstBlock]) && !bytes.Equal(slot[:len(image)], image) {
			t.Fatalf("the first block is that of the %s system, the rest is not", name)
		}
	}
}

// With two slots no first block is written before both were read back.
func TestOrderOfWritesOverTwoSlots(t *testing.T) {
	v1, v2 := systems()
	boot := noise(70, 2*chunkSize+512)
	data := build(t, nil, "bootloader", nil, boot, "rootfs", v1, v2)
	r := newRig(t, data, v1, v1)
	dir := t.TempDir()
	r.o.Slots["bootloader"] = map[bootctl.Slot]string{
		"a": write(t, dir+"/a", noise(71, 1<<20)), "b": write(t, dir+"/b", noise(72, 1<<20)),
	}
	r.restart()
	var log []string
	media := map[string]*flash{
		r.o.Slots["rootfs"]["b"]:     {name: "rootfs", stable: bytes.Clone(must(os.ReadFile(r.o.Slots["rootfs"]["b"]))), log: &log},
		r.o.Slots["bootloader"]["b"]: {name: "bootloader", stable: noise(72, 1<<20), log: &log},
	}
	r.engine.open = func(path string, _ bool) (device, error) { return media[path], nil }
	rel, _ := r.install(ModeAuto)
	if len(rel.Images) != 2 {
		t.Fatalf("release = %+v", rel)
	}
	all := strings.Join(log, "\n")
	if !strings.HasPrefix(all, "bootloader clear\nbootloader sync\nrootfs clear\nrootfs sync\nbootloader body") {
		t.Errorf("log begins with %q, want both slots cleared first", log[:5])
	}
	if !strings.HasSuffix(all, "body\nbootloader sync\nrootfs sync\nbootloader first\nbootloader sync\nrootfs first\nrootfs sync") {
		t.Errorf("log ends with %q, want both slots flushed, then both first blocks", log[len(log)-7:])
	}
	if n := strings.Count(all, "first"); n != 2 {
		t.Errorf("%d writes of a first block, want 2", n)
	}
	if !bytes.Equal(media[r.o.Slots["bootloader"]["b"]].stable[:len(boot)], boot) {
		t.Error("bootloader slot differs")
	}
}

func TestBadMedium(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)

	within := func(off int64) bool { return off/chunkSize == 6 }
	for name, c := range map[string]struct {
		medium flash
		want   string // "" = installs all the same
	}{
		"write fails": {flash{fail: func(op string, off int64) error {
			if op == "write" && within(off) {
				return syscall.EIO
			}
			return nil
		}}, "write at offset 393216"},
		"flush fails": {flash{fail: func(op string, _ int64) error {
			if op == "sync" {
				return syscall.EIO
			}
			return nil
		}}, "clear first block"},
		"read fails for good": {flash{fail: func(op string, off int64) error {
			if op == "read" && within(off) {
				return syscall.EIO
			}
			return nil
		}}, "read back at offset 393216"},
		"reads something else": {flash{corrupt: func(off int64, p []byte) {
			if within(off) {
				p[100] ^= 1
			}
		}}, "read back at offset 393216"},
		"first block does not hold": {flash{corrupt: func(off int64, p []byte) {
			if off == 0 && p[0] != 0 {
				p[9] ^= 1
			}
		}}, "read back first block"},
	} {
		for _, mode := range modes {
			t.Run(name+" "+mode, func(t *testing.T) {
				r := newRig(t, data, v1, noise(3, slotSize))
				m := c.medium
				r.onMedium(&m)
				_, err := r.run(t.Context(), r.inspect(mode), quiet)
				wantName(t, err, update.NameMedium)
				for _, want := range []string{"rootfs.b", c.want} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("error %q does not say %q", err, want)
					}
				}
				if c.want != "read back first block" && c.want != "clear first block" && !bytes.Equal(m.current()[:firstBlock], make([]byte, firstBlock)) {
					t.Error("a slot that could not be written has a first block")
				}
			})
		}
	}
	// A chunk that is lost once is written once more.
	for _, chunk := range []int64{0, 6, 9} {
		r := newRig(t, data, v1, noise(3, slotSize))
		lost := false
		m := &flash{}
		m.corrupt = func(off int64, p []byte) {
			if off == chunk*chunkSize && !lost && len(m.cache) == 0 && m.writes > 2 {
				lost = true
				p[5000] ^= 1
			}
		}
		r.onMedium(m)
		_, stats := r.install(ModeStream)
		if !lost || stats.Written < int64(len(v2))+chunkSize-firstBlock || !bytes.Equal(m.stable[:len(v2)], v2) {
			t.Errorf("chunk %d lost once (%v): %d bytes written, content equal %v", chunk, lost, stats.Written, bytes.Equal(m.stable[:len(v2)], v2))
		}
	}

}
