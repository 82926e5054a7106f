// SPDX-License-Identifier: Apache-2.0

package emmc

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/updaterd/updaterd/bootctl"
)

// A fakeCard is a card behind a kernel: its registers outlive who has it open.
type fakeCard struct {
	csd        extCSD
	writes     []byte // values of PARTITION_CONFIG
	locked     bool   // takes a write and keeps the old value
	cutBefore  bool   // the power fails before a write takes effect
	cutAfter   bool   // … or after it
	unreadable bool
	open       int
	empty      string // boot partition without a bootloader
}

var errCut = errors.New("power cut")

func (c *fakeCard) ExtCSD() (*extCSD, error) {
	if c.unreadable {
		return nil, errors.New("timed out")
	}
	csd := c.csd
	return &csd, nil
}

func (c *fakeCard) SetByte(index, value byte) error {
	switch {
	case index != partitionConfig:
		return errors.New("another register")
	case c.cutBefore:
		return errCut
	}
	c.writes = append(c.writes, value)
	if !c.locked {
		c.csd[index] = value
	}
	if c.cutAfter {
		return errCut
	}
	return nil
}

func (c *fakeCard) Close() error {
	c.open--
	return nil
}

func newSwitch(t *testing.T, c *fakeCard) *Switch {
	t.Helper()
	s, err := Open("/dev/mmcblk0boot0", "/dev/mmcblk0boot1")
	if err != nil {
		t.Fatal(err)
	}
	s.open = func(path string) (card, error) {
		if path != "/dev/mmcblk0" {
			t.Errorf("opens %s, want the user area", path)
		}
		c.open++
		return c, nil
	}
	s.kernel = func() (string, string, error) { return "6.12.1", "#1 SMP", nil }
	s.blank = func(path string) (bool, error) {
		if path != "/dev/mmcblk0boot0" && path != "/dev/mmcblk0boot1" {
			t.Errorf("looks at %s", path)
		}
		return c.empty == path, nil
	}
	t.Cleanup(func() {
		if c.open != 0 {
			t.Errorf("the card is open %d times still", c.open)
		}
	})
	return s
}

// Every other bit of the register stays as it is.
func TestSelect(t *testing.T) {
	for _, rest := range []byte{0, 0x40, 0x47, 0x80, 0xc3} {
		c := &fakeCard{}
		c.csd[partitionConfig] = rest | 1<<enableShift
		s := newSwitch(t, c)
		for _, step := range []struct {
			slot   bootctl.Slot
			writes int
			want   byte
		}{{"a", 0, 1}, {"b", 1, 2}, {"b", 1, 2}, {"a", 2, 1}} {
			if err := s.Select(step.slot); err != nil {
				t.Fatal(err)
			}
			if got := c.csd[partitionConfig]; got != rest|step.want<<enableShift || len(c.writes) != step.writes {
				t.Errorf("Select(%s): register %#02x after %d writes, want %#02x after %d", step.slot, got, len(c.writes), rest|step.want<<enableShift, step.writes)
			}
			if slot, err := s.Selected(); err != nil || slot != step.slot {
				t.Errorf("Selected = %s, %v; want %s", slot, err, step.slot)
			}
		}
	}
}

// Wherever the power fails, one of the two partitions is selected, and what is
// done again succeeds.
func TestSelectCut(t *testing.T) {
	for name, cut := range map[string]func(*fakeCard){
		"before": func(c *fakeCard) { c.cutBefore = true },
		"after":  func(c *fakeCard) { c.cutAfter = true },
	} {
		c := &fakeCard{}
		c.csd[partitionConfig] = 0x48
		cut(c)
		s := newSwitch(t, c)
		if err := s.Select("b"); !errors.Is(err, errCut) {
			t.Fatalf("%s: Select = %v, want a cut", name, err)
		}
		c.cutBefore, c.cutAfter = false, false
		if slot, err := s.Selected(); err != nil || !slot.Valid() {
			t.Errorf("%s: Selected = %q, %v", name, slot, err)
		}
		if err := s.Select("b"); err != nil || c.csd[partitionConfig] != 0x50 {
			t.Errorf("%s: Select = %v, register %#02x", name, err, c.csd[partitionConfig])
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		card fakeCard
		want string
	}{
		"locked":     {fakeCard{csd: extCSD{partitionConfig: 0x48}, locked: true}, "starts boot0 still"},
		"user area":  {fakeCard{csd: extCSD{partitionConfig: 0x78}}, "no boot partition"},
		"not at all": {fakeCard{}, "no boot partition"},
		"empty":      {fakeCard{csd: extCSD{partitionConfig: 0x48}, empty: "/dev/mmcblk0boot1"}, "boot1 is empty"},
		"unreadable": {fakeCard{unreadable: true}, "timed out"},
	} {
		s := newSwitch(t, &tc.card)
		if err := s.Select("b"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: Select = %v, want %q", name, err, tc.want)
		}
		if name != "locked" && len(tc.card.writes) > 0 {
			t.Errorf("%s: the register was written", name)
		}
	}
	c := &fakeCard{csd: extCSD{partitionConfig: 0x48}}
	s := newSwitch(t, c)
	if err := s.Select("c"); err == nil {
		t.Error("slot c was taken")
	}
	s.kernel = func() (string, string, error) { return "6.1.80", "#1", nil }
	if err := s.Select("b"); err == nil || !strings.Contains(err.Error(), "6.1.84") || len(c.writes) > 0 {
		t.Errorf("Select with a faulty kernel = %v", err)
	}
	if _, err := s.Selected(); err == nil {
		t.Error("a faulty kernel was asked")
	}
}

func TestOpen(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/dev/mmcblk7boot1", link); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][2]string{
		{"/dev/mmcblk0boot0", "/dev/mmcblk1boot1"}, {"/dev/mmcblk0boot0", "/dev/mmcblk0boot0"},
		{"/dev/mmcblk0p1", "/dev/mmcblk0boot1"}, {"/dev/sda", "/dev/sdb"}, {"", ""}, {"/dev/mmcblk0boot0", "/dev/mmcblk0boot2"},
	} {
		if s, err := Open(bad[0], bad[1]); err == nil {
			t.Errorf("Open(%q) = %+v; want an error", bad, s)
		}
	}
	s, err := Open("/dev/mmcblk2boot1", "/dev/mmcblk2boot0")
	if err != nil || s.disk != "/dev/mmcblk2" || s.number["a"] != 2 || s.number["b"] != 1 {
		t.Errorf("Open = %+v, %v", s, err)
	}
}

func TestCheckKernel(t *testing.T) {
	for _, tc := range []struct {
		release, version string
		ok               bool
	}{
		{"6.12.9", "#1 SMP", true}, {"6.1.75-yocto-standard", "#1", true}, {"6.1.76", "#1", false}, {"6.1.83-rt", "#1", false}, {"6.1.84", "#1", true},
		{"6.8.0", "#1", false}, {"6.8.2", "#1", false}, {"6.8.3", "#1", true}, {"6.7.2", "#1", true}, {"6.7.11", "#1", false},
		{"5.4.268", "", true}, {"5.4.269", "", false}, {"5.10.215", "", true}, {"5.15.150", "", false}, {"6.6.23", "", false},
		{"4.9.337", "", false}, {"4.14.30", "", false}, {"4.14.31", "", true}, {"4.15.13", "", false}, {"4.16.0", "", true}, {"7.0", "", true},
		{"6.1.0-18-arm64", "#1 SMP Debian 6.1.76-1 (2024-02-01)", false},
		{"6.1.0-31-arm64", "#1 SMP Debian 6.1.128-1 (2025-02-07)", true},
		{"strange", "", false}, {"", "", false},
	} {
		if err := checkKernel(tc.release, tc.version); (err == nil) != tc.ok {
			t.Errorf("checkKernel(%q, %q) = %v; want ok=%v", tc.release, tc.version, err, tc.ok)
		}
	}
}

func FuzzCheckKernel(f *testing.F) {
	f.Add("6.1.0-18-arm64", "#1 SMP Debian 6.1.76-1 (2024-02-01)")
	f.Fuzz(func(t *testing.T, release, version string) {
		if err := checkKernel(release, version); err == nil && !strings.ContainsAny(release+version, "0123456789") {
			t.Errorf("%q, %q is a version", release, version)
		}
	})
}

// What goes to the kernel, against the numbers of its headers.
func TestCommands(t *testing.T) {
	if unsafe.Sizeof(command{}) != 72 || uint32(ioctlCommand) != 0xc048b300 {
		t.Errorf("command has %d bytes, its number is %#x", unsafe.Sizeof(command{}), uint32(ioctlCommand))
	}
	if got, want := sendExtCSD(), (command{opcode: 8, flags: 0xb5, blockSize: 512, blocks: 1}); got != want {
		t.Errorf("to read: %+v, want %+v", got, want)
	}
	if got, want := setByte(179, 0x50), (command{write: 1, opcode: 6, arg: 0x03b35001, flags: 0x49d}); got != want {
		t.Errorf("to write: %+v, want %+v", got, want)
	}
}
