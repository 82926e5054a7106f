// SPDX-License-Identifier: Apache-2.0

package bootctl_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
)

// errCut stands for a power cut.
var errCut = errors.New("power cut")

// A board has one environment and two switches; every write to any of them
// counts, and the one that left leaves for is cut before it.
type board struct {
	control *uboot.Control
	rom     map[string]*romSwitch
	left    int
	log     []string
}

type romSwitch struct {
	b     *board
	class string
	slot  bootctl.Slot
	fault error
}

func (s *romSwitch) Selected() (bootctl.Slot, error) { return s.slot, s.fault }

func (s *romSwitch) Select(slot bootctl.Slot) error {
	if s.slot == slot && s.fault == nil {
		return nil
	}
	if err := s.b.write(s.class + "=" + string(slot)); err != nil {
		return err
	}
	s.slot = slot
	return nil
}

func (b *board) write(what string) error {
	if b.left == 0 {
		return errCut
	}
	b.left--
	b.log = append(b.log, what)
	return nil
}

// store is an environment in memory.
type store struct {
	b      *board
	copies [2][]byte
}

func (s *store) Geometry() (int, int)           { return 512, 2 }
func (s *store) Traits() uboot.Traits           { return uboot.Traits{} }
func (s *store) Obsolete(int) error             { return errors.New("not on a disk") }
func (s *store) Lock(bool) (func(), error)      { return func() {}, nil }
func (s *store) ReadCopy(i int) ([]byte, error) { return s.copies[i], nil }
func (s *store) Where(i int) string             { return fmt.Sprint(i) }
func (s *store) WriteCopy(i int, image []byte) error {
	if err := s.b.write("env"); err != nil {
		return err
	}
	s.copies[i] = image
	return nil
}

func newBoard(t *testing.T) (*board, *bootctl.Switched) {
	t.Helper()
	b := &board{left: -1, rom: map[string]*romSwitch{}}
	env, err := uboot.Parse([]byte("boot_slot=a\x00altbootcmd=x\x00bootlimit=3\x00boot_bad=b\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	st := &store{b: b}
	for i := range st.copies {
		if st.copies[i], err = uboot.EncodeCopy(env, byte(i+1), 512, true); err != nil {
			t.Fatal(err)
		}
	}
	b.control = uboot.New(st)
	switches := map[string]bootctl.Switch{}
	for _, class := range []string{"bootloader", "spl"} {
		b.rom[class] = &romSwitch{b: b, class: class, slot: "a"}
		switches[class] = b.rom[class]
	}
	return b, bootctl.WithSwitches(b.control, switches)
}

func (b *board) power() { b.left = -1; b.log = nil }

var (
	activate = bootctl.Change{Primary: "b", Trial: bootctl.TrialBegin, NotBad: []bootctl.Slot{"b"}}
	confirm  = bootctl.Change{Primary: "b", Trial: bootctl.TrialEnd, BothCopies: true}
	revert   = bootctl.Change{Primary: "a", Trial: bootctl.TrialEnd, Bad: []bootctl.Slot{"b"}, BothCopies: true}
)

// The switches move before the environment does, in every direction.
func TestSwitchesMoveFirst(t *testing.T) {
	b, control := newBoard(t)
	for _, step := range []struct {
		change bootctl.Change
		want   string
	}{
		{activate, "bootloader=b spl=b env"},
		{activate, ""},
		{confirm, "env env"},
		{revert, "bootloader=a spl=a env env"},
		{bootctl.Change{EnvID: "x"}, "env"},
	} {
		b.power()
		if err := control.Apply(step.change); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(b.log, " "); got != step.want {
			t.Errorf("%+v wrote %q, want %q", step.change, got, step.want)
		}
	}
}

// A cut before any write leaves the old environment or the new one, and what
// follows brings the switches to where the environment is.
func TestSwitchesSettleAfterCut(t *testing.T) {
	for name, changes := range map[string][]bootctl.Change{
		"activate": {activate}, "confirm": {activate, confirm}, "roll back": {activate, revert}, "undo": {activate, confirm, revert},
	} {
		for cut := 0; ; cut++ {
			b, control := newBoard(t)
			for _, c := range changes[:len(changes)-1] {
				if err := control.Apply(c); err != nil {
					t.Fatal(err)
				}
			}
			before, _ := b.control.Status()
			b.left = cut
			err := control.Apply(changes[len(changes)-1])
			b.power()
			if err == nil {
				if cut == 0 {
					t.Fatalf("%s: nothing was cut", name)
				}
				break
			}
			if !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			status, err := b.control.Status()
			if err != nil {
				t.Fatal(err)
			}
			if status.Primary != before.Primary && status.Primary != changes[len(changes)-1].Primary {
				t.Errorf("%s, cut %d: slot %s is primary", name, cut, status.Primary)
			}
			if err := control.Settle(); err != nil {
				t.Fatal(err)
			}
			for class, s := range b.rom {
				if !status.Trial && s.slot != status.Primary {
					t.Errorf("%s, cut %d: slot %s.%s is selected, %s is primary", name, cut, class, s.slot, status.Primary)
				}
			}
			// What the daemon does next, whatever was cut, is to say it again.
			if err := control.Apply(changes[len(changes)-1]); err != nil {
				t.Fatal(err)
			}
			if st, err := control.Status(); err != nil || len(st.Problems) > 0 {
				t.Errorf("%s, cut %d: %v, %v", name, cut, st.Problems, err)
			}
		}
	}
}

// After the bootloader has fallen back, the switches follow; a trial is left alone.
func TestSettle(t *testing.T) {
	b, control := newBoard(t)
	if err := control.Apply(activate); err != nil {
		t.Fatal(err)
	}
	b.rom["spl"].slot = "a"
	b.power()
	if err := control.Settle(); err != nil || len(b.log) > 0 {
		t.Errorf("Settle in a trial = %v, and wrote %v", err, b.log)
	}
	if st, err := control.Status(); err != nil || len(st.Problems) != 1 || !strings.Contains(st.Problems[0], "spl.a") {
		t.Errorf("Status = %+v, %v; want a problem with spl.a", st, err)
	}
	if err := b.control.Apply(bootctl.Change{Primary: "a", Trial: bootctl.TrialEnd, Bad: []bootctl.Slot{"b"}}); err != nil {
		t.Fatal(err)
	}
	b.power()
	if err := control.Settle(); err != nil || strings.Join(b.log, " ") != "bootloader=a" {
		t.Errorf("Settle = %v, and wrote %v; want bootloader=a alone", err, b.log)
	}
	b.rom["spl"].fault = errors.New("no answer")
	if st, err := control.Status(); err != nil || len(st.Problems) != 1 || !strings.Contains(st.Problems[0], "no answer") {
		t.Errorf("Status = %+v, %v; want what the switch said", st, err)
	}
}

func TestBlank(t *testing.T) {
	zeros, ones := make([]byte, 200_000), bytes.Repeat([]byte{0xff}, 200_000)
	late, mixed := bytes.Clone(zeros), bytes.Clone(zeros)
	late[150_000] = 1
	copy(mixed, ones[:100_000])
	for name, tc := range map[string]struct {
		b    []byte
		n    int64
		want bool
	}{
		"zeros": {zeros, 200_000, true}, "ones": {ones, 200_000, true}, "late": {late, 200_000, false}, "too late": {late, 150_000, true},
		"mixed": {mixed, 200_000, false}, "twos": {bytes.Repeat([]byte{2}, 200_000), 200_000, false},
	} {
		if got, err := bootctl.Blank(bytes.NewReader(tc.b), tc.n); err != nil || got != tc.want {
			t.Errorf("%s: Blank = %v, %v", name, got, err)
		}
	}
	if _, err := bootctl.Blank(bytes.NewReader(zeros), 200_001); err == nil {
		t.Error("what is not there was blank")
	}
}

// What the environment refuses moves no switch.
func TestSwitchesStayIfRefused(t *testing.T) {
	b, control := newBoard(t)
	for _, c := range []bootctl.Change{
		{Primary: "b", Trial: bootctl.TrialBegin},
		{Primary: "a", Bad: []bootctl.Slot{"a"}},
	} {
		if err := control.Apply(c); !errors.Is(err, bootctl.ErrBadSlot) {
			t.Errorf("Apply(%+v) = %v, want a bad slot", c, err)
		}
	}
	if err := control.Apply(bootctl.Change{Primary: "c"}); err == nil {
		t.Error("slot c was taken")
	}
	if len(b.log) > 0 {
		t.Errorf("wrote %v", b.log)
	}
	b.rom["bootloader"].fault = errors.New("unknown")
	b.left = 0
	if err := control.Apply(activate); !errors.Is(err, errCut) {
		t.Errorf("Apply = %v; want it to end at the switch", err)
	}
	if st, _ := b.control.Status(); st.Primary != "a" {
		t.Error("a switch that does not move lets the environment change")
	}
}
