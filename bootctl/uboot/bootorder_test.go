// SPDX-License-Identifier: Apache-2.0

package uboot_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
)

// orderMedium is a formatted one whose environment has vars on top of a
// factory's of scheme bootorder, slot a first.
func orderMedium(t interface{ Fatal(...any) }, vars map[string]string) *ubootmodel.Memory {
	m := ubootmodel.NewMemory(size, 2)
	board := ubootmodel.Board{Store: m, Default: ubootmodel.FactoryOrder("a")}
	maps.Copy(board.Default, vars)
	if err := board.Format(); err != nil {
		t.Fatal(err)
	}
	return m
}

// inOrder is the scheme as it is seen from a system in slot started.
func inOrder(t interface{ Fatal(...any) }, m uboot.Store, started bootctl.Slot) *uboot.Control {
	c, err := uboot.NewScheme(m, uboot.Scheme{Name: uboot.Bootorder, Started: started, BootID: "boot-1"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func order(list, a, b string, more ...string) map[string]string {
	vars := map[string]string{"BOOT_ORDER": list, "BOOT_A_LEFT": a, "BOOT_B_LEFT": b}
	for _, s := range more {
		name, value, _ := strings.Cut(s, "=")
		vars[name] = value
	}
	return vars
}

func TestOrderStatus(t *testing.T) {
	a, b := []bootctl.Slot{"a"}, []bootctl.Slot{"b"}
	for _, tc := range []struct {
		name    string
		vars    map[string]string
		started bootctl.Slot
		want    bootctl.Status
		fails   string
	}{
		{name: "factory", started: "a", want: bootctl.Status{Primary: "a"}},
		{name: "a counted start is no proof without a canary", vars: order("A B", "2", "3"), started: "a", want: bootctl.Status{Primary: "a"}},
		{name: "a counted start is", vars: order("A B", "2", "3", "env_id=x"), started: "a", want: bootctl.Status{Primary: "a", EnvID: "x", Proven: true}},
		{name: "the other slot's is not", vars: order("A B", "3", "2", "env_id=x"), started: "a", want: bootctl.Status{Primary: "a", EnvID: "x"}},
		{name: "nor one that is in no list", vars: order("B", "0", "3", "env_id=x"), started: "a", want: bootctl.Status{Primary: "b", Bad: a, EnvID: "x"}},
		{name: "proven before in this start", vars: order("A B", "3", "3", "env_id=counted-boot-1"), started: "a", want: bootctl.Status{Primary: "a", EnvID: "counted-boot-1", Proven: true}},
		{name: "proven in another start", vars: order("A B", "3", "3", "env_id=counted-boot-0"), started: "a", want: bootctl.Status{Primary: "a", EnvID: "counted-boot-0"}},
		{name: "trial to come", vars: order("B A", "3", "3", "upgrade_available=1"), started: "a", want: bootctl.Status{Primary: "b", Trial: true, TriesLeft: 3}},
		{name: "trial", vars: order("B A", "3", "1", "upgrade_available=1"), started: "b", want: bootctl.Status{Primary: "b", Trial: true, TriesLeft: 1}},
		{name: "last start of a trial", vars: order("B A", "3", "0", "upgrade_available=1"), started: "b", want: bootctl.Status{Primary: "b", Trial: true}},
		{name: "fallen back", vars: order("B A", "2", "0", "upgrade_available=1"), started: "a", want: bootctl.Status{Primary: "a", Bad: b}},
		{name: "fallen back, seen from elsewhere", vars: order("B A", "3", "0", "upgrade_available=1"), want: bootctl.Status{Primary: "a", Bad: b}},
		{name: "last start of a confirmed slot", vars: order("A B", "0", "3"), started: "a", want: bootctl.Status{Primary: "a"}},
		{name: "last start of the only slot", vars: order("A", "0", "0"), started: "a", want: bootctl.Status{Primary: "a", Bad: b}},
		{name: "a confirmed slot was given up", vars: order("A B", "0", "2"), started: "b", want: bootctl.Status{Primary: "b", Bad: a}},
		{name: "not in the order", vars: order("B", "3", "3"), started: "b", want: bootctl.Status{Primary: "b", Bad: a}},
		{name: "hexadecimal", vars: order(" B  A ", "a", "zz"), want: bootctl.Status{Primary: "a", Bad: b}},
		{name: "counters not set", vars: order("B A", "", ""), want: bootctl.Status{Primary: "b"}},
		{name: "a rescue system at the end", vars: order("A B R", "3", "3"), want: bootctl.Status{Primary: "a"}},
		{name: "a rescue system in front", vars: order("R A B", "3", "3"), want: bootctl.Status{Primary: "a",
			Problems: []string{`BOOT_ORDER begins with "R", which is not a slot: it would be started instead of one`}}},
		{name: "all given up", vars: order("A B", "0", "0"), want: bootctl.Status{Primary: "a", Bad: []bootctl.Slot{"a", "b"},
			Problems: []string{"both slots are given up: U-Boot would start neither"}}},
		{name: "a counter of U-Boot's own", vars: order("A B", "3", "3", "bootlimit=3"), want: bootctl.Status{Primary: "a",
			Problems: []string{"bootlimit is set and altbootcmd is not: a U-Boot with a boot counter of its own would stop at its prompt in a trial: remove bootlimit"}}},
		{name: "no order", vars: order("", "3", "3"), fails: "BOOT_ORDER is not set"},
		{name: "other names", vars: order("system0 system1", "", ""), fails: "names neither A nor B"},
		{name: "the other scheme", vars: order("", "", "", "boot_slot=a"), fails: "scheme bootorder is configured, but boot_slot is set, as in scheme bootcount"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checkStatus(t, inOrder(t, orderMedium(t, tc.vars), tc.started), tc.want, tc.fails)
		})
	}
}

func TestOrderApply(t *testing.T) {
	a, b := []bootctl.Slot{"a"}, []bootctl.Slot{"b"}
	for _, tc := range []struct {
		name    string
		before  map[string]string
		started bootctl.Slot // a unless given
		change  bootctl.Change
		set     map[string]string // what differs afterwards; "" = removed
		writes  int
		err     error
	}{
		{name: "nothing", before: order("A  B", "10", "")},
		{name: "acknowledge a start", before: order("A B", "2", "1"), change: bootctl.Change{Trial: bootctl.TrialEnd},
			set: order("A B", "3", "3"), writes: 1},
		{name: "and put the proof on record", before: order("A B", "1", "3", "env_id=x"), change: bootctl.Change{Trial: bootctl.TrialEnd},
			set: order("A B", "3", "3", "env_id=counted-boot-1"), writes: 1},
		{name: "acknowledge the last start", before: order("A B", "0", "3"), change: bootctl.Change{Trial: bootctl.TrialEnd},
			set: order("A B", "3", "3"), writes: 1},
		{name: "a slot that was given up stays so", before: order("B A", "2", "0"), change: bootctl.Change{Trial: bootctl.TrialEnd},
			set: order("B A", "3", "0"), writes: 1},
		{name: "acknowledged already", before: order("A B", "3", "3"), change: bootctl.Change{Trial: bootctl.TrialEnd, BothCopies: true}},
		{name: "what another tool granted becomes one digit", before: order("A B", "f", "3"), change: bootctl.Change{Trial: bootctl.TrialEnd},
			set: order("A B", "3", "3"), writes: 1},
		{name: "a canary starts the count anew", before: order("A B", "2", "3"), change: bootctl.Change{EnvID: "id"},
			set: order("A B", "3", "3", "env_id=id"), writes: 1},
		{name: "target bad, both copies", change: bootctl.Change{Primary: "a", Trial: bootctl.TrialEnd, Bad: b, BothCopies: true},
			set: order("A", "3", "0"), writes: 2},
		{name: "commit point 1", before: order("A", "2", "0"), change: bootctl.Change{Primary: "b", Trial: bootctl.TrialBegin, NotBad: b},
			set: order("B A", "3", "3", "upgrade_available=1"), writes: 1},
		{name: "commit point 2", before: order("B A", "3", "0", "upgrade_available=1"), started: "b",
			change: bootctl.Change{Primary: "b", Trial: bootctl.TrialEnd, BothCopies: true},
			set:    order("B A", "3", "3", "upgrade_available=0"), writes: 2},
		{name: "roll back", before: order("B A", "3", "2", "upgrade_available=1", "env_id=x"), started: "b",
			change: bootctl.Change{Primary: "a", Trial: bootctl.TrialEnd, Bad: b},
			set:    order("A", "3", "0", "upgrade_available=0", "env_id=counted-boot-1"), writes: 1},
		{name: "after a fall-back", before: order("B A", "2", "0", "upgrade_available=1"), change: bootctl.Change{Trial: bootctl.TrialEnd},
			set: order("A", "3", "0", "upgrade_available=0"), writes: 1},
		{name: "marked bad after a fall-back", before: order("B A", "2", "0", "upgrade_available=1"), change: bootctl.Change{Bad: b},
			set: order("A", "2", "0", "upgrade_available=0"), writes: 1},
		{name: "marked bad in its trial", before: order("B A", "3", "2", "upgrade_available=1"), started: "b", change: bootctl.Change{Bad: b},
			set: order("A", "3", "0", "upgrade_available=0"), writes: 1},
		{name: "the way back marked bad", before: order("B A", "3", "2", "upgrade_available=1"), started: "b", change: bootctl.Change{Bad: a},
			set: order("B", "0", "2"), writes: 1},
		{name: "marked good after a fall-back", before: order("B A", "2", "0", "upgrade_available=1"), change: bootctl.Change{NotBad: b},
			set: order("A B", "2", "3", "upgrade_available=0"), writes: 1},
		{name: "an order is never left empty", before: order("B", "3", "0", "upgrade_available=1"), change: bootctl.Change{Trial: bootctl.TrialEnd},
			set: order("B", "3", "0", "upgrade_available=0"), writes: 1},
		{name: "primary is bad", before: order("A", "3", "0"), change: bootctl.Change{Primary: "b"}, err: bootctl.ErrBadSlot},
		{name: "primary has no starts left", before: order("A B", "3", "0"), change: bootctl.Change{Primary: "b"}, err: bootctl.ErrBadSlot},
		{name: "primary made bad", change: bootctl.Change{Primary: "b", Bad: b}, err: bootctl.ErrBadSlot},
		{name: "the last good slot", before: order("A", "3", "0"), change: bootctl.Change{Bad: a}, err: bootctl.ErrBadSlot},
		{name: "bad, then not bad", before: order("A B", "3", "0"), change: bootctl.Change{Primary: "b", Bad: b, NotBad: b}, set: order("B A", "3", "3"), writes: 1},
		{name: "names of others stay", before: order("R A B", "3", "3"), change: bootctl.Change{Primary: "b"}, set: order("B R A", "3", "3"), writes: 1},
		{name: "primary repairs the order", before: order("", "", ""), change: bootctl.Change{Primary: "a"}, set: order("A B", "", ""), writes: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := orderMedium(t, tc.before)
			want := vars(t, m)
			before := m.Writes()
			if tc.started == "" {
				tc.started = "a"
			}
			c := inOrder(t, m, tc.started)
			err := c.Apply(tc.change)
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
				if err := c.Apply(tc.change); err != nil || m.Writes() != before {
					t.Errorf("the same change again: %v and %d writes; want none", err, m.Writes()-before)
				}
			}
		})
	}
}

// Whoever does not know which slot runs cannot tell the last start of a trial
// from its end, and must not take the running slot for one that was given up.
func TestOrderEndOfTrialUnknown(t *testing.T) {
	m := orderMedium(t, order("B A", "3", "0", "upgrade_available=1"))
	writes := m.Writes()
	err := inOrder(t, m, "").Apply(bootctl.Change{Trial: bootctl.TrialEnd, BothCopies: true})
	if !errors.Is(err, bootctl.ErrContract) || !strings.Contains(err.Error(), "mark-good b") || m.Writes() != writes {
		t.Errorf("Apply = %v, after %d writes; want ErrContract", err, m.Writes()-writes)
	}
	// What the error names is a way out.
	for _, change := range []bootctl.Change{{NotBad: []bootctl.Slot{"b"}}, {Primary: "b", Trial: bootctl.TrialEnd}} {
		if err := inOrder(t, m, "").Apply(change); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := inOrder(t, m, "").Status(); err != nil || st.Primary != "b" || st.Trial || len(st.Bad) > 0 {
		t.Errorf("Status = %+v, %v", st, err)
	}
}

// The scheme is found by the variables, unless both are there.
func TestSchemeIsFound(t *testing.T) {
	both := map[string]string{"BOOT_ORDER": "B A"}
	if _, err := uboot.New(medium(t, 2, both)).Status(); !errors.Is(err, bootctl.ErrContract) || !strings.Contains(err.Error(), "both boot_slot and BOOT_ORDER are set") {
		t.Errorf("Status with variables of both schemes = %v; want ErrContract", err)
	}
	for name, want := range map[string]bootctl.Slot{uboot.Bootcount: "a", uboot.Bootorder: "b"} {
		c, err := uboot.NewScheme(medium(t, 2, both), uboot.Scheme{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		if st, err := c.Status(); err != nil || st.Primary != want {
			t.Errorf("%s: %+v, %v; want %s", name, st, err, want)
		}
	}
	if st, err := uboot.New(orderMedium(t, order("B A", "3", "3"))).Status(); err != nil || st.Primary != "b" {
		t.Errorf("Status = %+v, %v; want b by the order", st, err)
	}
	c, err := uboot.NewScheme(orderMedium(t, nil), uboot.Scheme{Name: uboot.Bootcount})
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"Status": func() error { _, err := c.Status(); return err }(), "Apply": c.Apply(bootctl.Change{Primary: "b"})} {
		if !errors.Is(err, bootctl.ErrContract) || !strings.Contains(err.Error(), "BOOT_ORDER is set, as in scheme bootorder") {
			t.Errorf("%s with the wrong scheme = %v; want ErrContract", what, err)
		}
	}
	for _, s := range []uboot.Scheme{{Name: "grub"}, {Slots: [2]string{"A", "A"}}, {Slots: [2]string{"A", ""}}, {Slots: [2]string{"a b", "c"}}} {
		if _, err := uboot.NewScheme(orderMedium(t, nil), s); err == nil {
			t.Errorf("NewScheme(%+v) = nil; want an error", s)
		}
	}
}

func TestOtherNames(t *testing.T) {
	m := orderMedium(t, map[string]string{"BOOT_ORDER": "system0 system1", "BOOT_system0_LEFT": "2", "BOOT_system1_LEFT": "3"})
	c, err := uboot.NewScheme(m, uboot.Scheme{Slots: [2]string{"system0", "system1"}, Started: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(bootctl.Change{Primary: "b", Trial: bootctl.TrialBegin}); err != nil {
		t.Fatal(err)
	}
	got := vars(t, m)
	if got["BOOT_ORDER"] != "system1 system0" || got["BOOT_system0_LEFT"] != "3" || got["BOOT_A_LEFT"] != "3" {
		t.Errorf("the environment is %v", got)
	}
}

func TestBooted(t *testing.T) {
	for _, tc := range []struct {
		scheme uboot.Scheme
		flags  map[string]string
		want   bootctl.Slot
		fails  string
	}{
		{scheme: uboot.Scheme{Name: uboot.Bootcount}, flags: map[string]string{"updaterd.slot": "b"}, want: "b"},
		{scheme: uboot.Scheme{Name: uboot.Bootcount}, flags: map[string]string{"updaterd.slot": "B"}, fails: "neither a nor b"},
		{scheme: uboot.Scheme{Name: uboot.Bootcount}, flags: map[string]string{"rauc.slot": "B"}, fails: "no updaterd.slot="},
		{scheme: uboot.Scheme{Name: uboot.Bootorder}, flags: map[string]string{"rauc.slot": "B"}, want: "b"},
		{scheme: uboot.Scheme{Name: uboot.Bootorder}, flags: map[string]string{"rauc.slot": "b"}, fails: `neither "A" nor "B"`},
		{scheme: uboot.Scheme{Name: uboot.Bootorder}, flags: map[string]string{"rauc.slot": "B", "updaterd.slot": "a"}, want: "a"},
		{scheme: uboot.Scheme{Name: uboot.Bootorder}, fails: "neither updaterd.slot= nor rauc.slot="},
		{scheme: uboot.Scheme{Slots: [2]string{"system0", "system1"}}, flags: map[string]string{"rauc.slot": "system0"}, want: "a"},
	} {
		got, err := tc.scheme.Booted(func(name string) (string, bool) { value, found := tc.flags[name]; return value, found })
		if got != tc.want || (err != nil) != (tc.fails != "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
			t.Errorf("%+v, %v: Booted = %q, %v; want %q, %q", tc.scheme, tc.flags, got, err, tc.want, tc.fails)
		}
	}
}

// Random changes and starts: what Linux says is started next is what U-Boot
// starts, whatever runs, and only slots that are left.
func TestOrderProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := orderMedium(t, nil)
		board := ubootmodel.Board{Store: m, Default: ubootmodel.FactoryOrder("a")}
		var started bootctl.Slot
		slots := rapid.SliceOfN(rapid.SampledFrom([]bootctl.Slot{"a", "b"}), 0, 2)
		for range rapid.IntRange(1, 16).Draw(t, "steps") {
			if started == "" || rapid.Bool().Draw(t, "boot") {
				st, err := inOrder(t, m, "").Status() // as nobody who runs sees it
				if err != nil {
					t.Fatal(err)
				}
				start, err := board.Boot(func(bootctl.Slot) bool { return true })
				if err != nil {
					t.Fatal(err)
				}
				if len(st.Bad) < 2 && (start.Slot != st.Primary || st.IsBad(start.Slot)) {
					t.Fatalf("U-Boot starts %s, but %+v was expected", start.Slot, st)
				}
				started = start.Slot
			}
			c := inOrder(t, m, started)
			change := bootctl.Change{
				Primary: rapid.SampledFrom([]bootctl.Slot{"", "a", "b"}).Draw(t, "primary"),
				Trial:   rapid.SampledFrom([]bootctl.Trial{bootctl.TrialKeep, bootctl.TrialBegin, bootctl.TrialEnd}).Draw(t, "trial"),
				Bad:     slots.Draw(t, "bad"), NotBad: slots.Draw(t, "not bad"), BothCopies: rapid.Bool().Draw(t, "both"),
			}
			before := vars(t, m)
			if err := c.Apply(change); err != nil {
				if !errors.Is(err, bootctl.ErrBadSlot) || !maps.Equal(before, vars(t, m)) {
					t.Fatalf("Apply = %v", err)
				}
				continue
			}
			st, err := c.Status()
			if err != nil {
				t.Fatal(err)
			}
			for _, slot := range change.Bad {
				if !st.IsBad(slot) && !hasSlot(change.NotBad, slot) {
					t.Fatalf("%+v: slot %s is not bad", st, slot)
				}
			}
			if change.Primary != "" && (st.Primary != change.Primary || change.Trial == bootctl.TrialBegin && (!st.Trial || st.TriesLeft != uboot.Tries)) {
				t.Fatalf("%+v after %+v", st, change)
			}
			if change.Trial == bootctl.TrialEnd && st.Trial {
				t.Fatalf("the trial goes on: %+v", st)
			}
		}
	})
}

func hasSlot(list []bootctl.Slot, slot bootctl.Slot) bool {
	return bootctl.Status{Bad: list}.IsBad(slot)
}
