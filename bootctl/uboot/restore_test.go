// SPDX-License-Identifier: Apache-2.0

package uboot_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/mtd/mtdtest"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
)

func TestParseText(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       map[string]string
		fails      string
	}{
		{name: "nothing", want: map[string]string{}},
		{name: "lines", text: "# comment\n\na=1\r\nb=x = y # no comment\nempty=\n", want: map[string]string{"a": "1", "b": "x = y # no comment"}},
		{name: "joined", text: "b= \\\n\tx; \\\n# not in the way\n\n\ty\nc=1", want: map[string]string{"b": " x; y", "c": "1"}},
		{name: "no value", text: "a=1\nb\n", fails: `line 2: "b" is not name=value`},
		{name: "twice", text: "a=1\nb=\nb=2\n", fails: "line 3: b is set a second time, after line 2"},
		{name: "unfinished", text: "a=1\nb=\\\n", fails: "line 2 ends in a backslash"},
		{name: "bad name", text: "a b=1\n", fails: "line 1: set variable"},
		{name: "NUL", text: "a=\x00\n", fails: "line 1: set variable a"},
		{name: "large", text: strings.Repeat("#\n", uboot.MaxSize), fails: "more than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, err := uboot.ParseText([]byte(tc.text))
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("ParseText = %v; want %q", err, tc.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, e.Vars()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzText(f *testing.F) {
	f.Add("a=1\nb= \\\n\tx; \\\n# c\n y\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := uboot.ParseText([]byte(text))
		if err != nil || e.Len() > uboot.MaxSize/2 {
			return
		}
		// It can be stored, and comes back.
		data, err := e.Encode(e.Len())
		if err != nil {
			t.Fatal(err)
		}
		back, err := uboot.Parse(data)
		if err != nil || !back.Same(e) {
			t.Fatalf("%q came back as %v, %v", text, back, err)
		}
	})
}

var restored = bootctl.Change{Primary: "b", Trial: bootctl.TrialEnd, NotBad: []bootctl.Slot{"b"}, Bad: []bootctl.Slot{"a"}}

func defaults(t *testing.T) *uboot.Env {
	t.Helper()
	e := &uboot.Env{}
	for name, value := range ubootmodel.Factory("a") {
		if err := e.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// Restore in each state of the copies, on each number of them, in both
// conventions; and cut at every write of it.
func TestRestore(t *testing.T) {
	destroy := func(m *ubootmodel.Memory, copies ...int) {
		_, n := m.Geometry()
		for _, i := range copies {
			if uboot.DecodeCopy(m.Raw(i), n == 2).Valid {
				m.Raw(i)[9] ^= 1
			}
		}
	}
	for _, convention := range []uboot.Convention{uboot.Counter, uboot.ActiveObsolete} {
		for copies := 1; copies <= 2; copies++ {
			lost := []int{0, 1}[:copies]
			for _, force := range []bool{false, true} {
				name := fmt.Sprintf("convention %d, %d copies, force %v", convention, copies, force)
				m := ubootmodel.NewMemory(0x400, copies)
				m.Medium.Flags = convention
				board := ubootmodel.Board{Store: m, Default: ubootmodel.Factory("a")}
				if err := board.Format(); err != nil {
					t.Fatal(err)
				}
				c := uboot.New(m)
				if err := c.Apply(bootctl.Change{EnvID: "before", BothCopies: true}); err != nil {
					t.Fatal(err)
				}
				if copies == 2 {
					destroy(m, 0) // one that is left is enough
				}
				writes := m.Writes()
				switch err := c.Restore(defaults(t), restored, force); {
				case force && err != nil:
					t.Errorf("%s: %v", name, err)
				case !force && (!errors.Is(err, uboot.ErrIntact) || m.Writes() != writes):
					t.Errorf("%s: Restore of what is intact = %v, after %d writes", name, err, m.Writes()-writes)
				}
				if copies == 2 && !force {
					destroy(m, 1)
				} else {
					destroy(m, lost...)
				}
				// Cut at each write: what is left is nothing, or all that was to be restored.
				for n := 0; ; n++ {
					m.CutAt(n, 0x200)
					err := c.Restore(defaults(t), restored, force)
					m.PowerOn()
					st, serr := c.Status()
					if err == nil {
						if serr != nil || st.Primary != "b" || st.Trial || !st.IsBad("a") || st.Copies != copies || st.EnvID != "" {
							t.Errorf("%s: afterwards %+v, %v", name, st, serr)
						}
						if n != copies {
							t.Errorf("%s: %d writes", name, n)
						}
						start, err := board.Boot(func(bootctl.Slot) bool { return true })
						if err != nil || start.Slot != "b" || start.Defaults {
							t.Errorf("%s: the board starts %+v, %v", name, start, err)
						}
						break
					}
					if !errors.Is(err, ubootmodel.ErrCut) {
						t.Fatalf("%s: %v", name, err)
					}
					if serr == nil && (st.Primary != "b" || !st.IsBad("a")) || serr != nil && !errors.Is(serr, bootctl.ErrDamaged) {
						t.Errorf("%s, cut %d: %+v, %v", name, n, st, serr)
					}
					destroy(m, lost...)
				}
			}
		}
	}
}

// The other scheme is restored in its own variables.
func TestRestoreBootorder(t *testing.T) {
	m := ubootmodel.NewMemory(0x400, 2)
	env := &uboot.Env{}
	for name, value := range ubootmodel.FactoryOrder("a") {
		if err := env.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	c, err := uboot.NewScheme(m, uboot.Scheme{Name: uboot.Bootorder, Started: "b"})
	if err != nil {
		t.Fatal(err)
	}
	trial := bootctl.Change{Primary: "b", Trial: bootctl.TrialBegin, NotBad: []bootctl.Slot{"a", "b"}}
	for _, tc := range []struct {
		change bootctl.Change
		want   bootctl.Status
	}{
		{restored, bootctl.Status{Primary: "b", Bad: []bootctl.Slot{"a"}}},
		{trial, bootctl.Status{Primary: "b", Trial: true}},
	} {
		for i := range 2 {
			clear(m.Raw(i))
		}
		if err := c.Restore(env, tc.change, false); err != nil {
			t.Fatal(err)
		}
		st, err := c.Status()
		if err != nil || st.Copies != 2 || st.Primary != tc.want.Primary || st.Trial != tc.want.Trial || !cmp.Equal(st.Bad, tc.want.Bad) {
			t.Errorf("Status = %+v, %v; want %+v", st, err, tc.want)
		}
	}
}

// A configuration that says another number of copies than there is misreads an
// environment that is intact: that is not lost.
func TestRestoreMisread(t *testing.T) {
	single := ubootmodel.NewMemory(0x400, 1)
	board := ubootmodel.Board{Store: single, Default: ubootmodel.Factory("a")}
	if err := board.Format(); err != nil {
		t.Fatal(err)
	}
	m := ubootmodel.NewMemory(0x400, 2)
	copy(m.Raw(1), single.Raw(0))
	c := uboot.New(m)
	if err := c.Restore(defaults(t), restored, false); err == nil || !strings.Contains(err.Error(), "correct fw_env.config") || m.Writes() > 0 {
		t.Errorf("Restore = %v, after %d writes", err, m.Writes())
	}
	if err := c.Restore(defaults(t), restored, true); err != nil {
		t.Error(err)
	}
}

// mute is a medium that does not answer, for a while.
type mute struct{ *ubootmodel.Memory }

func (m mute) ReadCopy(i int) ([]byte, error) {
	return nil, fmt.Errorf("%w: %w", uboot.ErrUnreadable, unix.EIO)
}

// What cannot be read now may be intact the next time.
func TestRestoreOfMediumThatDoesNotAnswer(t *testing.T) {
	m := ubootmodel.NewMemory(0x400, 2)
	board := ubootmodel.Board{Store: m, Default: ubootmodel.Factory("a")}
	if err := board.Format(); err != nil {
		t.Fatal(err)
	}
	writes := m.Writes()
	err := uboot.New(mute{m}).Restore(defaults(t), restored, false)
	if err == nil || !strings.Contains(err.Error(), "may be intact") || m.Writes() != writes {
		t.Errorf("Restore = %v, after %d writes", err, m.Writes()-writes)
	}
	if st, err := uboot.New(m).Status(); err != nil || st.Primary != "a" || st.Copies != 2 {
		t.Errorf("Status = %+v, %v", st, err)
	}
	// By hand it is written all the same; that it cannot be read back is told.
	if err := uboot.New(mute{m}).Restore(defaults(t), restored, true); err == nil || m.Writes() != writes+2 {
		t.Errorf("forced: Restore = %v, after %d writes", err, m.Writes()-writes)
	}
}

func TestRestoreRefuses(t *testing.T) {
	m := ubootmodel.NewMemory(0x400, 2)
	c := uboot.New(m)
	poor := defaults(t)
	if err := poor.Set("altbootcmd", ""); err != nil {
		t.Fatal(err)
	}
	large := defaults(t)
	if err := large.Set("x", strings.Repeat("x", 0x400)); err != nil {
		t.Fatal(err)
	}
	both := bootctl.Change{Primary: "b", Bad: []bootctl.Slot{"b"}}
	for _, tc := range []struct {
		name     string
		defaults *uboot.Env
		change   bootctl.Change
		want     string
	}{
		{"no way back", poor, restored, "altbootcmd is not set"},
		{"no slot", defaults(t), bootctl.Change{}, "no slot"},
		{"bad slot", defaults(t), both, "marked bad"},
		{"too large", large, restored, "environment is full"},
	} {
		if err := c.Restore(tc.defaults, tc.change, true); err == nil || !strings.Contains(err.Error(), tc.want) || m.Writes() > 0 {
			t.Errorf("%s: Restore = %v, after %d writes; want %q", tc.name, err, m.Writes(), tc.want)
		}
		// What depends on the defaults alone is known before.
		if err := c.Restorable(tc.defaults); (tc.defaults == poor || tc.defaults == large) != (err != nil) {
			t.Errorf("%s: Restorable = %v", tc.name, err)
		}
	}
}

// One place that cannot be written does not keep the other from being restored.
func TestRestoreOneFails(t *testing.T) {
	chip := mtdtest.New(nandChip)
	chip.BadBlocks = []int64{0x200, 0x300}
	c := uboot.New(flashStore(t, chip, flashConfig()))
	if err := c.Restore(defaults(t), restored, false); err == nil || !strings.Contains(err.Error(), "only 1 are good") {
		t.Errorf("Restore = %v; want an error about the first copy", err)
	}
	if st, err := c.Status(); err != nil || st.Copies != 1 || st.Primary != "b" {
		t.Errorf("Status = %+v, %v", st, err)
	}
}
