// SPDX-License-Identifier: Apache-2.0

package parttable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bootctl"
	image "github.com/updaterd/updaterd/qemu/assets/gpt"
)

const (
	diskSize = 8 << 20
	half     = 1 << 20
)

var halves = Halves{A: 1 << 20, B: 2 << 20, Size: half}

var errCut = errors.New("power cut")

// A memory is a disk whose power fails at a write, of which any of its sectors
// may have got through.
type memory struct {
	b       []byte
	writes  int
	cutAt   int    // 0: never
	through uint64 // of the sectors of the write that is cut, by bits
	lying   bool
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(m.b)) {
		return 0, errors.New("beyond the end")
	}
	return copy(p, m.b[off:]), nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if m.writes++; m.writes == m.cutAt {
		for i := 0; i*sector < len(p); i++ {
			if m.through>>(i%64)&1 == 1 {
				copy(m.b[off+int64(i*sector):], p[i*sector:(i+1)*sector])
			}
		}
	}
	if m.cutAt > 0 && m.writes >= m.cutAt {
		return 0, errCut
	}
	if m.lying {
		return len(p), nil
	}
	return copy(m.b[off:], p), nil
}

func (m *memory) Sync() error          { return nil }
func (m *memory) Size() (int64, error) { return int64(len(m.b)), nil }
func (m *memory) Close() error         { return nil }

func on(t *testing.T, m *memory, s *Switch, err error) *Switch {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.b) == diskSize {
		m.b[halves.A], m.b[halves.B+100_000] = 1, 1 // bootloaders
	}
	s.open = func(string, bool) (disk, error) { return m, nil }
	if s.kernel != nil {
		s.kernel = func() ([]byte, error) { return []byte("root=/dev/mmcblk0p2 gpt panic=5\n"), nil }
	}
	return s
}

func newGPT(t *testing.T) (*memory, *Switch) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table := image.Table{Name: "test", Size: diskSize, Parts: []image.Part{
		{Name: "bootloader", Start: halves.A, Size: half}, {Name: "data", Start: 4 << 20, Size: 2 << 20}}}
	if err := errors.Join(f.Truncate(diskSize), table.Write(f)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{b: b}
	s, err := OpenGPT("disk", 1, halves)
	return m, on(t, m, s, err)
}

func newMBR(t *testing.T) (*memory, *Switch) {
	t.Helper()
	m := &memory{b: make([]byte, diskSize)}
	copy(m.b, bytes.Repeat([]byte{0x90}, mbrEntries)) // somebody's code
	m.b[510], m.b[511] = 0x55, 0xaa
	for i, e := range []extent{{8192, 4096}, {uint64(halves.A / sector), half / sector}} {
		b := m.b[mbrEntries+i*16:]
		b[4] = 0xa2
		binary.LittleEndian.PutUint32(b[8:], uint32(e.start))
		binary.LittleEndian.PutUint32(b[12:], uint32(e.count))
	}
	s, err := OpenMBR("disk", 2, halves)
	return m, on(t, m, s, err)
}

// rom is firmware that takes the first table whose checksums fit, written here
// once more, without the code under test.
func rom(t *testing.T, b []byte) bootctl.Slot {
	t.Helper()
	le := binary.LittleEndian
	if b[mbrEntries+4] != 0xee {
		start := int64(le.Uint32(b[mbrEntries+16+8:])) * sector
		return map[int64]bootctl.Slot{halves.A: "a", halves.B: "b"}[start]
	}
	try := func(h []byte, table int64) bootctl.Slot {
		header := bytes.Clone(h[:92])
		clear(header[16:20])
		if crc32.ChecksumIEEE(header) != le.Uint32(h[16:]) || int64(le.Uint64(h[72:])) != table || crc32.ChecksumIEEE(b[table*sector:][:128*128]) != le.Uint32(h[88:]) {
			return ""
		}
		return map[int64]bootctl.Slot{halves.A: "a", halves.B: "b"}[int64(le.Uint64(b[table*sector+32:]))*sector]
	}
	last := int64(len(b)/sector - 1)
	if slot := try(b[sector:], 2); slot != "" {
		return slot
	}
	return try(b[last*sector:], last-32)
}

// Each change is one write of an MBR, and two of a GPT. Cut at any of them, with
// any of its sectors written or not, the firmware finds one of the halves; and
// what is done again then succeeds.
func TestSelectCutAnywhere(t *testing.T) {
	for name, kind := range map[string]struct {
		make    func(*testing.T) (*memory, *Switch)
		writes  int
		through []uint64
	}{
		// Bit 0 is the header of the first table, and the first entries of the second.
		"GPT": {newGPT, 2, []uint64{0, 1, 2, 3, 1 << 32, 1<<32 - 1, 1<<33 - 1, 1<<32 | 1, 6}},
		"MBR": {newMBR, 1, []uint64{0, 1}},
	} {
		for cutAt := 1; cutAt <= kind.writes; cutAt++ {
			for _, through := range kind.through {
				m, s := kind.make(t)
				whole := bytes.Clone(m.b)
				m.cutAt, m.through = cutAt, through
				if err := s.Select("b"); !errors.Is(err, errCut) {
					t.Fatalf("%s, write %d: Select = %v", name, cutAt, err)
				}
				m.cutAt = 0
				slot, err := s.Selected()
				if started := rom(t, m.b); started != slot || err != nil || !slot.Valid() {
					t.Fatalf("%s, write %d, sectors %b: the firmware starts %q, Selected is %q, %v", name, cutAt, through, started, slot, err)
				}
				for _, to := range []bootctl.Slot{"b", "a"} {
					if err := s.Select(to); err != nil || rom(t, m.b) != to {
						t.Fatalf("%s, write %d, sectors %b: Select(%s) = %v, started is %s", name, cutAt, through, to, err, rom(t, m.b))
					}
				}
				if name == "GPT" && !bytes.Equal(m.b, whole) {
					t.Fatalf("write %d, sectors %b: there and back again is another disk", cutAt, through)
				}
			}
		}
	}
}

// A cut between the tables, or within the first, is mended although the entry that
// counts leads to the right half: the second table must not lead to the other one
// while that is written, and nobody else mends the first.
func TestCutIsMendedAtTheNextStart(t *testing.T) {
	for _, cut := range []struct {
		at      int
		through uint64
		to      bootctl.Slot // what the environment says
	}{{1, 0, "a"}, {1, 2, "a"}, {2, 0, "b"}, {2, 0, "a"}, {2, 1, "b"}} {
		m, s := newGPT(t)
		m.cutAt, m.through = cut.at, cut.through
		if err := s.Select("b"); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		m.cutAt = 0
		control := bootctl.WithSwitches(primary(cut.to), map[string]bootctl.Switch{"bootloader": s})
		if err := control.Settle(); err != nil {
			t.Fatal(err)
		}
		for _, self := range []uint64{1, uint64(diskSize/sector - 1)} {
			c, err := loadAt(m, self)
			if err != nil {
				t.Errorf("cut %+v: table at %d: %v", cut, self, err)
			} else if e, _ := c.extent(1); e != halves.at(cut.to) {
				t.Errorf("cut %+v: the table at %d says %+v", cut, self, e)
			}
		}
		m.writes = 0
		if err := control.Settle(); err != nil || m.writes > 0 {
			t.Errorf("cut %+v: settled again: %v, %d writes", cut, err, m.writes)
		}
	}
}

// primary is an environment.
type primary bootctl.Slot

func (p primary) Status() (bootctl.Status, error) {
	return bootctl.Status{Primary: bootctl.Slot(p)}, nil
}
func (p primary) Apply(bootctl.Change) error { return nil }

// A second cut while the tables differ, or one of them is damaged, is as harmless.
func TestSelectWithDamagedTable(t *testing.T) {
	last := diskSize/sector - 1
	for name, damage := range map[string][]int{"first": {sector}, "second": {last * sector}, "first's entries": {2*sector + 7}, "second's": {(last-32)*sector + 7}} {
		for cutAt := 0; cutAt <= 3; cutAt++ {
			for _, through := range []uint64{0, 1, 2, 3, 1 << 32} {
				m, s := newGPT(t)
				for _, at := range damage {
					m.b[at] ^= 0x40
				}
				m.cutAt, m.through = cutAt, through
				err := s.Select("b")
				if (err == nil) != (cutAt == 0 || m.writes < cutAt) {
					t.Fatalf("%s damaged: Select = %v", name, err)
				}
				if slot := rom(t, m.b); !slot.Valid() {
					t.Fatalf("%s damaged, write %d, sectors %b: no table is left", name, cutAt, through)
				}
				m.cutAt = 0
				if err := s.Select("b"); err != nil || rom(t, m.b) != "b" {
					t.Fatalf("%s damaged, write %d: again: %v", name, cutAt, err)
				}
				for _, self := range []uint64{1, uint64(last)} {
					if c, err := loadAt(m, self); err != nil {
						t.Fatalf("%s damaged: table at %d: %v", name, self, err)
					} else if e, _ := c.extent(1); e != halves.at("b") {
						t.Fatalf("%s damaged: the table at %d says %+v", name, self, e)
					}
				}
			}
		}
	}
	m, s := newGPT(t)
	m.b[sector] ^= 1
	m.b[last*sector] ^= 1
	before := bytes.Clone(m.b)
	if err := s.Select("b"); !errors.Is(err, errNoTable) || !bytes.Equal(m.b, before) {
		t.Errorf("Select without a table = %v", err)
	}
}

// Nothing but the entry changes in an MBR, and selecting again writes nothing.
func TestMBRKeepsTheRest(t *testing.T) {
	m, s := newMBR(t)
	before := bytes.Clone(m.b)
	for range 2 {
		if err := s.Select("b"); err != nil {
			t.Fatal(err)
		}
	}
	if m.writes != 1 {
		t.Errorf("%d writes, want 1", m.writes)
	}
	entry := mbrEntries + 16
	if !bytes.Equal(m.b[:entry], before[:entry]) || !bytes.Equal(m.b[entry+16:], before[entry+16:]) || m.b[entry+4] != 0xa2 || m.b[entry] != before[entry] {
		t.Error("something else than the place has changed")
	}
}

func TestRefusals(t *testing.T) {
	for name, h := range map[string]Halves{"overlap": {1 << 20, 1<<20 + 512, half}, "no sectors": {100, 1 << 20, half}, "nothing": {1 << 20, 2 << 20, 0}, "the table": {0, 1 << 20, half}} {
		if _, err := OpenMBR("x", 1, h); err == nil {
			t.Errorf("%s: OpenMBR took %+v", name, h)
		}
		if _, err := OpenGPT("x", 1, h); err == nil {
			t.Errorf("%s: OpenGPT took %+v", name, h)
		}
	}
	if _, err := OpenMBR("x", 5, halves); err == nil {
		t.Error("partition 5 of an MBR")
	}
	if _, err := OpenMBR("x", 1, Halves{A: 1 << 20, B: 1 << 42, Size: half}); err == nil {
		t.Error("a half beyond what an MBR can say")
	}
	if _, err := OpenGPT("x", 0, halves); err == nil {
		t.Error("partition 0")
	}
	// An entry that leads elsewhere is left alone.
	m, _ := newGPT(t)
	for _, number := range []int{2, 3, 128} {
		s, err := OpenGPT("disk", number, halves)
		if err := on(t, m, s, err).Select("b"); err == nil || m.writes > 0 {
			t.Errorf("partition %d was moved: %v", number, err)
		}
	}
	m, s := newMBR(t)
	m.b[511] = 0
	if err := s.Select("b"); err == nil || m.writes > 0 {
		t.Errorf("a sector that is no MBR was written: %v", err)
	}
	for _, kind := range []func(*testing.T) (*memory, *Switch){newGPT, newMBR} {
		m, s := kind(t)
		m.b[halves.B+100_000] = 0
		if err := s.Select("b"); err == nil || !strings.Contains(err.Error(), "is empty") || m.writes > 0 {
			t.Errorf("an empty half was selected: %v", err)
		}
		m.b[halves.B+100_000] = 1
		m.lying = true
		if err := s.Select("b"); err == nil || !strings.Contains(err.Error(), "failing") {
			t.Errorf("a medium that forgets was believed: %v", err)
		}
		if err := s.Select("c"); err == nil {
			t.Error("slot c was taken")
		}
	}
}

// Whoever finds the first table torn looks for the second at the end of the disk.
// On a larger disk than the image was made for it is not there: a cut in the write
// of the first table would leave none.
func TestSecondTableElsewhere(t *testing.T) {
	m, s := newGPT(t)
	m.b = append(m.b, make([]byte, 1<<20)...)
	if slot, err := s.Selected(); err == nil || !strings.Contains(err.Error(), "move-second-header") {
		t.Errorf("Selected = %s, %v", slot, err)
	}
	if err := s.Select("b"); err == nil || m.writes > 0 {
		t.Errorf("Select = %v after %d writes", err, m.writes)
	}
}

// Linux looks at the second table only if it is told to, and would start without
// a partition after a cut in the write of the first.
func TestKernelTakesTheSecondTable(t *testing.T) {
	for line, ok := range map[string]bool{"gpt": true, "a=b gpt\n": true, "": false, "gpt_sector=1 panic=5": false} {
		m, s := newGPT(t)
		s.kernel = func() ([]byte, error) { return []byte(line), nil }
		if slot, err := s.Selected(); (err == nil) != ok {
			t.Errorf("%q: Selected = %s, %v", line, slot, err)
		}
		if err := s.Select("b"); (err == nil) != ok || !ok && m.writes > 0 {
			t.Errorf("%q: Select = %v after %d writes", line, err, m.writes)
		}
	}
	if _, s := newMBR(t); s.kernel != nil {
		t.Error("an MBR has one table")
	}
}

// A half that is part of something else is not one that may be written.
func TestHalvesOfOthers(t *testing.T) {
	for name, b := range map[string]int64{"data": 5 << 20, "end of data": 6<<20 - sector, "first table": 33 * sector, "second table": diskSize - half - sector} {
		m, s := newGPT(t)
		s.halves.B = b
		if slot, err := s.Selected(); err == nil || !strings.Contains(err.Error(), "half b") {
			t.Errorf("GPT, %s: Selected = %s, %v", name, slot, err)
		}
		if err := s.Select("b"); m.writes > 0 {
			t.Errorf("GPT, %s: Select = %v after %d writes", name, err, m.writes)
		}
	}
	m, s := newMBR(t)
	s.halves.B = 5 << 20
	if slot, err := s.Selected(); err == nil || !strings.Contains(err.Error(), "half b") {
		t.Errorf("MBR: Selected = %s, %v", slot, err)
	}
	m.b[mbrEntries+mbrType] = mbrProtective
	if slot, err := s.Selected(); err != nil || slot != "a" {
		t.Errorf("MBR beside a GPT: Selected = %s, %v", slot, err)
	}
}

// Another program reads what was written, on a real file.
func TestSfdiskAgrees(t *testing.T) {
	sfdisk, err := exec.LookPath("sfdisk")
	if err != nil {
		if sfdisk = "/usr/sbin/sfdisk"; func() bool { _, err := os.Stat(sfdisk); return err != nil }() {
			t.Skip("no sfdisk (package fdisk)")
		}
	}
	for name, kind := range map[string]func(*testing.T) (*memory, *Switch){"gpt": newGPT, "dos": newMBR} {
		m, s := kind(t)
		path := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(path, m.b, 0o600); err != nil {
			t.Fatal(err)
		}
		s.path, s.open = path, openDisk
		if err := s.Select("b"); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(sfdisk, "--dump", path).CombinedOutput()
		if want := fmt.Sprintf("start=%12d, size=%12d", halves.B/sector, half/sector); err != nil || !strings.Contains(string(out), "label: "+name) || !strings.Contains(string(out), want) {
			t.Errorf("sfdisk says, %v:\n%s", err, out)
		}
		if out, err := exec.Command(sfdisk, "--verify", path).CombinedOutput(); err != nil || name == "gpt" && !strings.Contains(string(out), "No errors") {
			t.Errorf("sfdisk --verify: %v\n%s", err, out)
		}
	}
}

// Whatever a disk holds: no panic, bounded memory, and nothing is written unless
// the entry leads to one of the halves.
func FuzzGPT(f *testing.F) {
	table := image.Table{Name: "test", Size: 128 * sector, Parts: []image.Part{{Name: "x", Start: 40 * sector, Size: 8 * sector}}}
	seed := make(filled, table.Size)
	if err := table.Write(seed); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(seed))
	f.Add(make([]byte, 3*sector))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &memory{b: bytes.Clone(b)}
		s, err := OpenGPT("disk", 1, Halves{A: 40 * sector, B: 50 * sector, Size: 8 * sector})
		s = on(t, m, s, err)
		slot, err := s.Selected()
		if again := s.Select("b"); err != nil && (again == nil || m.writes > 0) {
			t.Fatalf("Selected = %s, %v; Select = %v after %d writes", slot, err, again, m.writes)
		}
	})
}

func FuzzMBR(f *testing.F) {
	f.Add(make([]byte, sector))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &memory{b: bytes.Clone(b)}
		s, err := OpenMBR("disk", 1, Halves{A: 40 * sector, B: 50 * sector, Size: 8 * sector})
		s = on(t, m, s, err)
		slot, err := s.Selected()
		if again := s.Select("b"); err != nil && (again == nil || m.writes > 0) {
			t.Fatalf("Selected = %s, %v; Select = %v after %d writes", slot, err, again, m.writes)
		}
	})
}

// filled is memory to write to.
type filled []byte

func (b filled) WriteAt(p []byte, off int64) (int, error) { return copy(b[off:], p), nil }
