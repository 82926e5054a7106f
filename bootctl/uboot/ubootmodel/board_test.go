// SPDX-License-Identifier: Apache-2.0

package ubootmodel_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
)

func board(t interface{ Fatal(...any) }) (*ubootmodel.Board, *ubootmodel.Memory, *uboot.Control) {
	m := ubootmodel.NewMemory(0x200, 2)
	b := &ubootmodel.Board{Store: m, Default: ubootmodel.Factory("a")}
	if err := b.Format(); err != nil {
		t.Fatal(err)
	}
	return b, m, uboot.New(m)
}

func all(bootctl.Slot) bool { return true }

func only(slot bootctl.Slot) func(bootctl.Slot) bool {
	return func(s bootctl.Slot) bool { return s == slot }
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// As seen on the real one: with bootlimit=2 the starts are counted 1, 2 and 3,
// and the third is the fall-back, with one save.
func TestTrialRunsOut(t *testing.T) {
	b, m, c := board(t)
	must(t, c.Update(false, func(e *uboot.Env) error { return e.Set("bootlimit", "2") }))
	must(t, c.Apply(bootctl.Change{Primary: "b", Trial: bootctl.TrialBegin, EnvID: "id1"}))
	for left := 2; left > 0; left-- {
		if st, err := c.Status(); err != nil || st.TriesLeft != left || !st.Trial {
			t.Fatalf("Status = %+v, %v; want %d tries", st, err, left)
		}
		before := m.Writes()
		start, err := b.Boot(all)
		must(t, err)
		if diff := cmp.Diff(ubootmodel.Start{Slot: "b", EnvID: "id1"}, start); diff != "" || m.Writes() != before+1 {
			t.Fatalf("%d writes, %s", m.Writes()-before, diff)
		}
	}
	before := m.Writes()
	start, err := b.Boot(all)
	must(t, err)
	if start.Slot != "a" || !start.FellBack || m.Writes() != before+2 { // the count, then the fall-back
		t.Fatalf("Boot = %+v with %d writes", start, m.Writes()-before)
	}
	st, err := c.Status()
	must(t, err)
	want := bootctl.Status{Primary: "a", Bad: []bootctl.Slot{"b"}, EnvID: "id1", Copies: 2, Redundant: true}
	if diff := cmp.Diff(want, st); diff != "" {
		t.Error(diff)
	}
}

func TestHealthyDeviceWritesNothing(t *testing.T) {
	b, m, _ := board(t)
	before := m.Writes()
	for range 10 {
		if start, err := b.Boot(all); err != nil || start.Slot != "a" {
			t.Fatalf("Boot = %+v, %v", start, err)
		}
		// A device that keeps falling back because its slot is empty does not write either.
		if start, err := b.Boot(only("b")); err != nil || start.Slot != "b" {
			t.Fatalf("Boot = %+v, %v", start, err)
		}
	}
	if m.Writes() != before {
		t.Errorf("%d writes", m.Writes()-before)
	}
}

func TestBoot(t *testing.T) {
	for _, tc := range []struct {
		name   string
		vars   map[string]string
		starts func(bootctl.Slot) bool
		want   ubootmodel.Start
		fails  bool
	}{
		{name: "bad primary", vars: map[string]string{"boot_bad": "a"}, starts: all, want: ubootmodel.Start{Slot: "b"}},
		{name: "bad other", vars: map[string]string{"boot_bad": "b"}, starts: only("b"), fails: true},
		{name: "nothing starts", starts: func(bootctl.Slot) bool { return false }, fails: true},
		{name: "both bad", vars: map[string]string{"boot_bad": "a b"}, starts: all, fails: true},
		{name: "limit without altbootcmd", vars: map[string]string{"altbootcmd": "", "upgrade_available": "1", "bootcount": "3"}, starts: all, fails: true},
		{name: "nowhere to fall back to", vars: map[string]string{"boot_bad": "b", "upgrade_available": "1", "bootcount": "9"}, starts: all, want: ubootmodel.Start{Slot: "a"}},
		{name: "no limit", vars: map[string]string{"bootlimit": "", "upgrade_available": "1", "bootcount": "9"}, starts: all, want: ubootmodel.Start{Slot: "a"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, _, c := board(t)
			must(t, c.Update(true, func(e *uboot.Env) error {
				for name, value := range tc.vars {
					if err := e.Set(name, value); err != nil {
						return err
					}
				}
				return nil
			}))
			got, err := b.Boot(tc.starts)
			if tc.fails {
				if !errors.Is(err, ubootmodel.ErrNoBoot) {
					t.Fatalf("Boot = %+v, %v; want ErrNoBoot", got, err)
				}
				return
			}
			must(t, err)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	b, m, _ := board(t)
	m.Raw(0)[20]++
	m.Raw(1)[20]++
	if start, err := b.Boot(all); err != nil || !start.Defaults || start.Slot != "a" {
		t.Errorf("Boot = %+v, %v; want a from defaults", start, err)
	}
}

// A script of scheme bootorder takes one off at every start, also when the slot
// cannot be loaded, and fills all up when nothing is left.
func TestInOrder(t *testing.T) {
	m := ubootmodel.NewMemory(0x200, 2)
	b := &ubootmodel.Board{Store: m, Default: ubootmodel.FactoryOrder("b")}
	must(t, b.Format())
	for _, want := range []struct {
		starts func(bootctl.Slot) bool
		slot   bootctl.Slot
		a, b   string
	}{
		{all, "b", "3", "2"}, {all, "b", "3", "1"}, {only("a"), "a", "2", "0"}, {all, "a", "1", "0"}, {all, "a", "0", "0"}, {all, "b", "3", "2"},
	} {
		start, err := b.Boot(want.starts)
		must(t, err)
		env, err := uboot.New(m).Env()
		must(t, err)
		if start.Slot != want.slot || start.EnvID != "" || env.Get("BOOT_A_LEFT") != want.a || env.Get("BOOT_B_LEFT") != want.b {
			t.Fatalf("Boot = %+v, A %s B %s; want %+v", start, env.Get("BOOT_A_LEFT"), env.Get("BOOT_B_LEFT"), want)
		}
	}
	must(t, uboot.New(m).Update(false, func(e *uboot.Env) error { return e.Set("BOOT_ORDER", "a R") }))
	if start, err := b.Boot(all); !errors.Is(err, ubootmodel.ErrNoBoot) {
		t.Errorf("with no slot in the order: %+v, %v", start, err)
	}
}

// Linux and U-Boot in turn, with a power cut anywhere: the device always starts
// some slot, never a bad one, and both halves read the same environment.
func TestTwoHalves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, m, c := board(t)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "cut") {
				m.CutAt(rapid.IntRange(0, 1).Draw(t, "write"), rapid.IntRange(0, 0x200).Draw(t, "bytes"))
			}
			var err error
			if rapid.Bool().Draw(t, "linux") {
				err = c.Apply(rapid.SampledFrom([]bootctl.Change{
					{Bad: []bootctl.Slot{"b"}, BothCopies: true},
					{Primary: "b", Trial: bootctl.TrialBegin, NotBad: []bootctl.Slot{"b"}},
					{Trial: bootctl.TrialEnd, BothCopies: true},
					{Primary: "a", Trial: bootctl.TrialEnd, Bad: []bootctl.Slot{"b"}, NotBad: []bootctl.Slot{"a"}},
				}).Draw(t, "change"))
			} else {
				_, err = b.Boot(all)
			}
			if err != nil && !errors.Is(err, ubootmodel.ErrCut) && !errors.Is(err, bootctl.ErrBadSlot) {
				t.Fatal(err)
			}
			m.PowerOn()
			st, err := c.Status()
			if err != nil {
				t.Fatal(err)
			}
			start, err := b.Boot(all)
			if err != nil || start.Defaults || st.IsBad(start.Slot) {
				t.Fatalf("%+v, but U-Boot does %+v, %v", st, start, err)
			}
			if !start.FellBack && start.Slot != st.Primary {
				t.Fatalf("U-Boot starts %s, but Linux expected %s", start.Slot, st.Primary)
			}
			if start.FellBack && (!st.Trial || st.TriesLeft > 0) {
				t.Fatalf("%+v, but U-Boot falls back", st)
			}
		}
	})
}
