// SPDX-License-Identifier: Apache-2.0

package uboot_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
)

const size = 0x200

// medium is a formatted one whose environment has vars on top of a factory's.
func medium(t interface{ Fatal(...any) }, copies int, vars map[string]string) *ubootmodel.Memory {
	m := ubootmodel.NewMemory(size, copies)
	board := ubootmodel.Board{Store: m, Default: ubootmodel.Factory("a")}
	maps.Copy(board.Default, vars)
	if err := board.Format(); err != nil {
		t.Fatal(err)
	}
	return m
}

func vars(t interface{ Fatal(...any) }, store uboot.Store) map[string]string {
	env, err := uboot.New(store).Env()
	if err != nil {
		t.Fatal(err)
	}
	return env.Vars()
}

func TestStatus(t *testing.T) {
	const noWay = "altbootcmd is not set: when a trial's tries are used up, U-Boot would stop at its prompt instead of falling back"
	for _, tc := range []struct {
		name  string
		vars  map[string]string
		want  bootctl.Status
		fails string
	}{
		{name: "factory", want: bootctl.Status{Primary: "a"}},
		{name: "trial", vars: map[string]string{"boot_slot": "b", "upgrade_available": "1", "bootcount": "1", "env_id": "x1"},
			want: bootctl.Status{Primary: "b", Trial: true, TriesLeft: 2, EnvID: "x1"}},
		{name: "trial used up", vars: map[string]string{"upgrade_available": "1", "bootcount": "7"}, want: bootctl.Status{Primary: "a", Trial: true}},
		{name: "a stray counter", vars: map[string]string{"bootcount": "2"}, want: bootctl.Status{Primary: "a"}},
		{name: "bad", vars: map[string]string{"boot_bad": " b  b "}, want: bootctl.Status{Primary: "a", Bad: []bootctl.Slot{"b"}}},
		{name: "primary is bad", vars: map[string]string{"boot_bad": "a"}, want: bootctl.Status{Primary: "b", Bad: []bootctl.Slot{"a"}}},
		{name: "all bad", vars: map[string]string{"boot_bad": "b a"}, want: bootctl.Status{Primary: "a", Bad: []bootctl.Slot{"a", "b"},
			Problems: []string{"both slots are marked bad: U-Boot would start nothing"}}},
		{name: "unknown bad", vars: map[string]string{"boot_bad": "c b"}, want: bootctl.Status{Primary: "a", Bad: []bootctl.Slot{"b"},
			Problems: []string{`boot_bad lists "c", which is not a slot`}}},
		{name: "no way back", vars: map[string]string{"altbootcmd": ""}, want: bootctl.Status{Primary: "a", Problems: []string{noWay}}},
		{name: "no limit", vars: map[string]string{"bootlimit": "x3", "upgrade_available": "1y"}, want: bootctl.Status{Primary: "a", Trial: true,
			Problems: []string{"bootlimit is not set, so the trial in progress would never fall back"}}},
		{name: "no slot", vars: map[string]string{"boot_slot": ""}, fails: "boot_slot is not set"},
		{name: "wrong slot", vars: map[string]string{"boot_slot": "A"}, fails: `boot_slot is "A"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checkStatus(t, uboot.New(medium(t, 2, tc.vars)), tc.want, tc.fails)
		})
	}
}

// checkStatus compares what an environment of two intact copies says. fails, if
// given, is what the error says instead.
func checkStatus(t *testing.T, c *uboot.Control, want bootctl.Status, fails string) {
	t.Helper()
	got, err := c.Status()
	if fails != "" {
		if !errors.Is(err, bootctl.ErrContract) || !strings.Contains(err.Error(), fails) {
			t.Fatalf("Status = %v; want ErrContract with %q", err, fails)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	want.Copies, want.Redundant = 2, true
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestApply(t *testing.T) {
	b := []bootctl.Slot{"b"}
	for _, tc := range []struct {
		name   string
		before map[string]string
		change bootctl.Change
		set    map[string]string // what differs afterwards; "" = removed
		writes int
		err    error
	}{
		{name: "nothing"},
		{name: "commit point 1", before: map[string]string{"boot_bad": "b", "bootcount": "1"},
			change: bootctl.Change{Primary: "b", Trial: bootctl.TrialBegin, NotBad: b},
			set:    map[string]string{"boot_slot": "b", "upgrade_available": "1", "bootcount": "0", "boot_bad": ""}, writes: 1},
		{name: "commit point 2", before: map[string]string{"boot_slot": "b", "upgrade_available": "1", "bootcount": "2"},
			change: bootctl.Change{Trial: bootctl.TrialEnd, BothCopies: true},
			set:    map[string]string{"upgrade_available": "0", "bootcount": "0"}, writes: 2},
		{name: "confirmed already", change: bootctl.Change{Trial: bootctl.TrialEnd, BothCopies: true}},
		{name: "target bad, both copies", change: bootctl.Change{Bad: b, BothCopies: true}, set: map[string]string{"boot_bad": "b"}, writes: 2},
		{name: "bad already", before: map[string]string{"boot_bad": "b"}, change: bootctl.Change{Bad: b, BothCopies: true}},
		{name: "roll back", before: map[string]string{"boot_slot": "b", "upgrade_available": "1", "bootcount": "1"},
			change: bootctl.Change{Primary: "a", Trial: bootctl.TrialEnd, Bad: b},
			set:    map[string]string{"boot_slot": "a", "upgrade_available": "0", "bootcount": "0", "boot_bad": "b"}, writes: 1},
		{name: "primary is bad", before: map[string]string{"boot_bad": "b"}, change: bootctl.Change{Primary: "b"}, err: bootctl.ErrBadSlot},
		{name: "primary made bad", change: bootctl.Change{Primary: "b", Bad: b}, err: bootctl.ErrBadSlot},
		{name: "bad, then not bad", change: bootctl.Change{Primary: "b", Bad: b, NotBad: b}, set: map[string]string{"boot_slot": "b"}, writes: 1},
		{name: "primary left bad", before: map[string]string{"boot_slot": "b"}, change: bootctl.Change{Bad: b}, set: map[string]string{"boot_bad": "b"}, writes: 1},
		{name: "the last good slot", before: map[string]string{"boot_bad": "b"}, change: bootctl.Change{Bad: []bootctl.Slot{"a"}}, err: bootctl.ErrBadSlot},
		{name: "unknown names stay", before: map[string]string{"boot_bad": "c"}, change: bootctl.Change{Bad: b}, set: map[string]string{"boot_bad": "c b"}, writes: 1},
		{name: "canary", change: bootctl.Change{EnvID: "0123abcd"}, set: map[string]string{"env_id": "0123abcd"}, writes: 1},
		{name: "trial again", before: map[string]string{"upgrade_available": "1", "bootcount": "2"}, change: bootctl.Change{Trial: bootctl.TrialBegin},
			set: map[string]string{"bootcount": "0"}, writes: 1},
		{name: "a trial gets a limit", before: map[string]string{"bootlimit": "0"}, change: bootctl.Change{Trial: bootctl.TrialBegin},
			set: map[string]string{"bootlimit": "3", "upgrade_available": "1"}, writes: 1},
		{name: "no trial without a way back", before: map[string]string{"altbootcmd": ""}, change: bootctl.Change{Trial: bootctl.TrialBegin}, err: bootctl.ErrContract},
		{name: "primary repairs boot_slot", before: map[string]string{"boot_slot": "?"}, change: bootctl.Change{Primary: "a"}, set: map[string]string{"boot_slot": "a"}, writes: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := medium(t, 2, tc.before)
			want := vars(t, m)
			before := m.Writes()
			err := uboot.New(m).Apply(tc.change)
			if !errors.Is(err, tc.err) {
				t.Fatalf("Apply = %v; want %v", err, tc.err)
			}
			for name, value := range tc.set {
				if want[name] = value; value == "" {
					delete(want, name)
				}
			}
			if diff := cmp.Diff(want, vars(t, m)); diff != "" {
				t.Error(diff)
			}
			if got := m.Writes() - before; got != tc.writes {
				t.Errorf("%d writes; want %d", got, tc.writes)
			}
			if err == nil {
				before := m.Writes()
				if err := uboot.New(m).Apply(tc.change); err != nil || m.Writes() != before {
					t.Errorf("the same change again: %v and %d writes; want none", err, m.Writes()-before)
				}
			}
		})
	}
	for name, change := range map[string]bootctl.Change{
		"primary": {Primary: "c"}, "bad": {Bad: []bootctl.Slot{""}}, "not bad": {NotBad: []bootctl.Slot{"rootfs.a"}},
		"canary with a blank": {EnvID: "a init=/bin/sh"}, "long canary": {EnvID: strings.Repeat("x", 65)}, "trial": {Trial: 3},
	} {
		m := medium(t, 2, nil)
		before := m.Writes()
		if err := uboot.New(m).Apply(change); err == nil || m.Writes() != before {
			t.Errorf("%s: Apply = %v and %d writes; want an error and none", name, err, m.Writes()-before)
		}
	}
}

// Each write goes to the copy that is not in force, and losing either copy after
// BothCopies changes nothing, through two wraps of the flag.
func TestBothCopiesAndWrap(t *testing.T) {
	m := medium(t, 2, nil)
	var current int
	m.Tear = func(n, copy int, old, new []byte) ([]byte, bool) {
		if copy == current {
			t.Fatalf("write %d overwrites the copy in force", n)
		}
		current = copy
		return new, false
	}
	c := uboot.New(m)
	for i := range 600 {
		both := i%3 == 0
		value := fmt.Sprint(i)
		if err := c.Update(both, func(e *uboot.Env) error { return e.Set("x", value) }); err != nil {
			t.Fatal(err)
		}
		if got := vars(t, m)["x"]; got != value {
			t.Fatalf("x = %s; want %s", got, value)
		}
		if !both {
			continue
		}
		want := vars(t, m)
		for lost := range 2 {
			kept := bytes.Clone(m.Raw(lost))
			m.Raw(lost)[7] ^= 1
			if diff := cmp.Diff(want, vars(t, m)); diff != "" {
				t.Fatalf("copy %d lost: %s", lost, diff)
			}
			copy(m.Raw(lost), kept)
		}
	}
}

// Wherever a write is torn, what is in force is wholly old or wholly new, the
// next change works, and the old is never found again once Apply had returned.
func TestTornWrite(t *testing.T) {
	change := bootctl.Change{Primary: "b", Trial: bootctl.TrialBegin, EnvID: "after", BothCopies: true}
	oldVars := vars(t, medium(t, 2, nil))
	done := medium(t, 2, nil)
	if err := uboot.New(done).Apply(change); err != nil {
		t.Fatal(err)
	}
	newVars := vars(t, done)
	points := 0
	for write := range 2 {
		for cut := range size + 1 {
			// What the disk does to the sector in hand: keeps the old rest, or spoils it.
			for _, spoil := range []bool{false, true} {
				m := medium(t, 2, nil)
				first := m.Writes()
				m.Tear = func(n, _ int, old, new []byte) ([]byte, bool) {
					if n-first != write {
						return new, false
					}
					torn := append(bytes.Clone(new[:cut]), old[cut:]...)
					for i := cut; spoil && i < size; i++ {
						torn[i] = 0xff
					}
					return torn, true
				}
				if err := uboot.New(m).Apply(change); !errors.Is(err, ubootmodel.ErrCut) {
					t.Fatalf("Apply = %v; want the cut", err)
				}
				m.PowerOn()
				points++
				got := vars(t, m)
				isOld, isNew := cmp.Equal(got, oldVars), cmp.Equal(got, newVars)
				if !isNew && (!isOld || write > 0) {
					t.Fatalf("write %d torn after %d bytes: %v", write, cut, got)
				}
				if err := uboot.New(m).Apply(change); err != nil {
					t.Fatal(err)
				}
				st, err := uboot.New(m).Status()
				if err != nil || st.Copies != 2 || !cmp.Equal(vars(t, m), newVars) {
					t.Fatalf("write %d torn after %d bytes, then changed again: %+v, %v", write, cut, st, err)
				}
			}
		}
	}
	t.Logf("%d cut points", points)
}

func TestDamaged(t *testing.T) {
	for _, tc := range []struct {
		name   string
		copies int
		spoil  func(m *ubootmodel.Memory)
		want   string
	}{
		{"both copies", 2, func(m *ubootmodel.Memory) { m.Raw(0)[9]++; m.Raw(1)[9]++ }, "copy 1: the checksum does not fit; copy 2: the checksum does not fit"},
		{"the only copy", 1, func(m *ubootmodel.Memory) { m.Raw(0)[9]++ }, "copy 1: the checksum does not fit"},
		{"never written", 2, func(m *ubootmodel.Memory) { clear(m.Raw(0)); copy(m.Raw(1), bytes.Repeat([]byte{255}, size)) }, "nothing was ever stored there"},
		{"stored without redundancy", 2, func(m *ubootmodel.Memory) {
			single := medium(t, 1, nil)
			copy(m.Raw(0), single.Raw(0))
			m.Raw(1)[9]++
		}, "stored without redundancy"},
		{"stored with redundancy", 1, func(m *ubootmodel.Memory) { copy(m.Raw(0), medium(t, 2, nil).Raw(0)) }, "names only one"},
		{"good checksum of rubbish", 1, func(m *ubootmodel.Memory) {
			copy(m.Raw(0), []byte("\x00\x00\x00\x00=x\x00\x00"))
			fixChecksum(m.Raw(0))
		}, "value \"x\" has no name"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := medium(t, tc.copies, nil)
			tc.spoil(m)
			before := m.Writes()
			_, err := uboot.New(m).Status()
			if !errors.Is(err, bootctl.ErrDamaged) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "updater-bootctl restore") {
				t.Errorf("Status = %v; want ErrDamaged, %q and what to do", err, tc.want)
			}
			if err := uboot.New(m).Apply(bootctl.Change{Primary: "b", BothCopies: true}); !errors.Is(err, bootctl.ErrDamaged) {
				t.Errorf("Apply = %v; want ErrDamaged", err)
			}
			if m.Writes() != before {
				t.Error("something was written")
			}
		})
	}
}

func TestHealsOneCopy(t *testing.T) {
	for lost := range 2 {
		m := medium(t, 2, nil)
		m.Raw(lost)[10] ^= 4
		c := uboot.New(m)
		if st, err := c.Status(); err != nil || st.Copies != 1 {
			t.Fatalf("Status = %+v, %v; want one copy", st, err)
		}
		if err := c.Apply(bootctl.Change{}); err != nil || m.Writes() != 2 {
			t.Fatalf("a change of nothing: %v, %d writes", err, m.Writes()-2)
		}
		if err := c.Apply(bootctl.Change{BothCopies: true}); err != nil || m.Writes() != 3 {
			t.Fatalf("both copies: %v, %d writes; want 1", err, m.Writes()-2)
		}
		if st, err := c.Status(); err != nil || st.Copies != 2 {
			t.Fatalf("Status = %+v, %v; want two copies", st, err)
		}
	}
}

func TestTooLargeWritesNothing(t *testing.T) {
	m := medium(t, 2, nil)
	before := m.Writes()
	err := uboot.New(m).Update(true, func(e *uboot.Env) error { return e.Set("x", strings.Repeat("y", size)) })
	if !errors.Is(err, uboot.ErrTooLarge) || m.Writes() != before {
		t.Errorf("Update = %v, %d writes; want ErrTooLarge and none", err, m.Writes()-before)
	}
}

// lying is a medium that acknowledges writes and keeps the old bytes.
type lying struct{ *ubootmodel.Memory }

func (lying) WriteCopy(int, []byte) error { return nil }

func TestReadsBack(t *testing.T) {
	c := uboot.New(lying{medium(t, 2, nil)})
	if err := c.Apply(bootctl.Change{Primary: "b"}); err == nil || !strings.Contains(err.Error(), "something else than what was written") {
		t.Errorf("Apply = %v; want an error about the medium", err)
	}
}

// unflushed takes what is written and fails to flush it, so often.
type unflushed struct {
	*ubootmodel.Memory
	times  int
	copies []int // in the order of writing
}

func (u *unflushed) WriteCopy(i int, image []byte) error {
	u.copies = append(u.copies, i)
	if err := u.Memory.WriteCopy(i, image); err != nil {
		return err
	}
	if u.times--; u.times >= 0 {
		return errors.New("flush: input/output error")
	}
	return nil
}

// A change that was written and not flushed is not there already: it is written
// again where it is, until that works, and the other copy is left alone.
func TestWritesAgainWhatWasNotFlushed(t *testing.T) {
	u := &unflushed{Memory: medium(t, 2, nil), times: 2}
	c := uboot.New(u)
	change := bootctl.Change{Primary: "b"}
	for try := range 4 {
		if err := c.Apply(change); (err != nil) != (try < 2) {
			t.Errorf("try %d = %v", try, err)
		}
	}
	if len(u.copies) != 3 || u.copies[1] != u.copies[0] || u.copies[2] != u.copies[0] {
		t.Errorf("copies %v were written; want one of them three times", u.copies)
	}
	if got := vars(t, u)["boot_slot"]; got != "b" {
		t.Errorf("boot_slot=%s", got)
	}
}

// The only copy that is left is not written over: its content goes into the other one.
func TestLeavesTheOnlyCopyAlone(t *testing.T) {
	u := &unflushed{Memory: medium(t, 2, nil), times: 1}
	c := uboot.New(u)
	change := bootctl.Change{Primary: "b"}
	if c.Apply(change) == nil {
		t.Fatal("a flush that failed is no error")
	}
	only := u.copies[0]
	broken, err := u.ReadCopy(1 - only)
	if err != nil {
		t.Fatal(err)
	}
	broken[0] ^= 1
	if err := u.Memory.WriteCopy(1-only, broken); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(change); err != nil {
		t.Fatal(err)
	}
	if len(u.copies) != 2 || u.copies[1] == only {
		t.Errorf("copies %v were written; want the broken one last", u.copies)
	}
	if got := vars(t, u)["boot_slot"]; got != "b" {
		t.Errorf("boot_slot=%s", got)
	}
}

// Random changes do what their fields say, and never touch other variables.
func TestApplyProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := medium(t, rapid.IntRange(1, 2).Draw(t, "copies"), map[string]string{"other": "kept as it is"})
		c := uboot.New(m)
		slots := rapid.SliceOfN(rapid.SampledFrom([]bootctl.Slot{"a", "b"}), 0, 2)
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			before, err := c.Status()
			if err != nil {
				t.Fatal(err)
			}
			change := bootctl.Change{
				Primary: rapid.SampledFrom([]bootctl.Slot{"", "a", "b"}).Draw(t, "primary"),
				Trial:   rapid.SampledFrom([]bootctl.Trial{bootctl.TrialKeep, bootctl.TrialBegin, bootctl.TrialEnd}).Draw(t, "trial"),
				Bad:     slots.Draw(t, "bad"), NotBad: slots.Draw(t, "not bad"), BothCopies: rapid.Bool().Draw(t, "both"),
			}
			err = c.Apply(change)
			after, serr := c.Status()
			if serr != nil {
				t.Fatal(serr)
			}
			if err != nil {
				if diff := cmp.Diff(before, after); diff != "" || !errors.Is(err, bootctl.ErrBadSlot) {
					t.Fatalf("Apply(%+v) = %v and changed %s", change, err, diff)
				}
				continue
			}
			if len(after.Bad) == 2 || after.IsBad(after.Primary) || change.Primary != "" && after.Primary != change.Primary {
				t.Fatalf("Apply(%+v) led to %+v", change, after)
			}
			if want := before.Trial && change.Trial == bootctl.TrialKeep || change.Trial == bootctl.TrialBegin; after.Trial != want {
				t.Fatalf("Apply(%+v): trial is %v", change, after.Trial)
			}
			if got := vars(t, m)["other"]; got != "kept as it is" {
				t.Fatalf("another variable became %q", got)
			}
		}
	})
}
