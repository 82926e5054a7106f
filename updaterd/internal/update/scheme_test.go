// SPDX-License-Identifier: Apache-2.0

package update

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
)

// schemes are those that the boot environment can have.
var schemes = []string{uboot.Bootcount, uboot.Bootorder}

// A generation is what one copy of the environment says, read without bootctl.
type generation struct {
	bootctl.Status                // Primary, Trial and Bad alone
	spent          []bootctl.Slot // has no starts left, but is in the order
}

// startable reports that the bootloader starts slot sooner or later, unless the
// ones before it get to a system that decides otherwise.
func (g generation) startable(slot bootctl.Slot) bool {
	if slices.Contains(g.spent, slot) {
		// When no slot in the order has starts left, all are filled up.
		return len(g.spent)+len(g.Bad) == 2
	}
	return !g.IsBad(slot)
}

// generations are the environments of the intact copies, the one in force first.
func (w *world) generations() []generation {
	copies := []uboot.Copy{uboot.DecodeCopy(w.medium.Raw(0), true), uboot.DecodeCopy(w.medium.Raw(1), true)}
	var out []generation
	first := uboot.Counter.Select(copies[0], copies[1])
	for _, i := range []int{first, 1 - first} {
		if i < 0 || i > 1 || !copies[i].Valid {
			continue
		}
		e, err := uboot.Parse(copies[i].Data)
		if err != nil {
			continue
		}
		if w.scheme == uboot.Bootorder {
			out = append(out, inOrder(e, w.running))
		} else {
			out = append(out, counting(e))
		}
	}
	return out
}

func counting(e *uboot.Env) generation {
	var g generation
	g.Primary, g.Trial = bootctl.Slot(e.Get("boot_slot")), e.Get("upgrade_available") == "1"
	for _, bad := range strings.Fields(e.Get("boot_bad")) {
		g.Bad = append(g.Bad, bootctl.Slot(bad))
	}
	return g
}

// inOrder takes the slot that runs for one that is not spent: it may be in its
// last start, in which the daemon fills its starts up again. What this leaves out
// is a cut there, after two before it: three starts in a row that do not get as
// far as the daemon are a fall-back in this scheme, whatever the reason.
func inOrder(e *uboot.Env, running bootctl.Slot) generation {
	var g generation
	order := strings.Fields(strings.ToLower(cmp.Or(e.Get("BOOT_ORDER"), "A B")))
	g.Primary = bootctl.Slot(order[0])
	for _, slot := range []bootctl.Slot{"b", "a"} {
		switch {
		case !slices.Contains(order, string(slot)):
			g.Bad = append(g.Bad, slot)
		case slot != running && e.Get("BOOT_"+strings.ToUpper(string(slot))+"_LEFT") == "0":
			g.spent = append(g.spent, slot)
		}
	}
	if slices.Contains(g.spent, g.Primary) && len(order) == 2 && len(g.spent) == 1 {
		g.Primary = bootctl.Slot(order[1])
	}
	g.Trial = e.Get("upgrade_available") == "1" && order[0] == string(g.Primary)
	return g
}

// control is the boot environment as it is seen from a start of the device.
func (w *world) control(m *machine) *uboot.Control {
	c, err := uboot.NewScheme(w.medium, uboot.Scheme{Name: w.scheme, Started: m.start.Slot, BootID: m.bootID})
	if err != nil {
		panic(err)
	}
	return c
}

// environments are those that say s in the scheme, as seen from the slot that
// runs: none if it cannot be said, several if there is more than one way.
func environments(scheme string, s bootctl.Status, started bootctl.Slot) []map[string]string {
	if s.IsBad(s.Primary) {
		return nil // the other slot would be primary, or nothing would start
	}
	if scheme == uboot.Bootcount {
		env := ubootmodel.Factory(s.Primary)
		for _, bad := range s.Bad {
			env["boot_bad"] = string(bad)
		}
		if s.Trial {
			env["upgrade_available"] = "1"
		}
		return []map[string]string{env}
	}
	name := func(slot bootctl.Slot) string { return strings.ToUpper(string(slot)) }
	env := ubootmodel.FactoryOrder(s.Primary)
	if s.Trial {
		env["upgrade_available"] = "1"
	}
	all := []map[string]string{env}
	for _, bad := range s.Bad {
		if started == s.Primary && !s.Trial { // by a fall-back
			fellBack := maps.Clone(env)
			fellBack["BOOT_ORDER"] = name(bad) + " " + name(s.Primary)
			fellBack["BOOT_"+name(bad)+"_LEFT"], fellBack["upgrade_available"] = "0", "1"
			all = append(all, fellBack)
		}
		env["BOOT_ORDER"], env["BOOT_"+name(bad)+"_LEFT"] = name(s.Primary), "0"
	}
	if started == s.Primary { // in its last start
		for _, env := range slices.Clone(all) {
			last := maps.Clone(env)
			last["BOOT_"+name(started)+"_LEFT"] = "0"
			all = append(all, last)
		}
	}
	return all
}

// TestReconcileInSchemes does what Reconcile says to an environment of each
// scheme, for all that a start can find and a scheme can say: the state machine
// and the schemes mean the same by a change.
func TestReconcileInSchemes(t *testing.T) {
	for _, scheme := range schemes {
		n := 0
		for r := range rows() {
			f := r.facts()
			if f.Unreadable {
				continue
			}
			started := f.Booted
			if !started.Valid() {
				started = ""
			}
			for _, env := range environments(scheme, f.Boot, started) {
				what := fmt.Sprintf("%s: Reconcile%q on %v", scheme, []string(r), env)
				m := ubootmodel.NewMemory(0x200, 2)
				board := ubootmodel.Board{Store: m, Default: env}
				if err := board.Format(); err != nil {
					t.Fatal(err)
				}
				c, err := uboot.NewScheme(m, uboot.Scheme{Name: scheme, Started: started, BootID: f.BootID})
				if err != nil {
					t.Fatal(err)
				}
				want := f.Boot
				says(t, what, c, want)
				for _, fx := range Reconcile(r.journal(), f).Effects {
					if fx.Kind != DoApply {
						continue
					}
					n++
					if err := c.Apply(fx.Change); err != nil {
						t.Errorf("%s: %s: %v", what, fx, err)
					}
					want = changed(want, fx.Change)
					says(t, what+": "+fx.String(), c, want)
				}
			}
		}
		if n < 300 {
			t.Errorf("%s: only %d changes were tried", scheme, n)
		}
		t.Logf("%s: %d changes", scheme, n)
	}
}

func says(t *testing.T, what string, c *uboot.Control, want bootctl.Status) {
	t.Helper()
	got, err := c.Status()
	if err != nil || got.Primary != want.Primary || got.Trial != want.Trial || !slices.Equal(got.Bad, want.Bad) {
		t.Fatalf("%s: the environment says %+v, %v; want %+v", what, got, err, want)
	}
}

// TestEnvironmentUnproven: until a reboot has shown that the bootloader uses the
// environment, nothing is installed; one reboot does it, a factory environment
// can carry the id, and an environment that nobody else uses never gets through.
func TestEnvironmentUnproven(t *testing.T) {
	for _, scheme := range schemes {
		t.Run(scheme, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorldOf(scheme)
				install := func(l *life, proven bool) {
					t.Helper()
					defer l.end()
					_, err := l.Install(l.ctx, ref, InstallOptions{KeepInstalled: true})
					if !proven {
						wantName(t, "Install", err, NameEnvironmentUnproven)
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					l.reach(StateInstalled)
					if err := l.Cancel(l.Snapshot().Job.ID); err != nil {
						t.Fatal(err)
					}
				}
				// As it left the factory, with an id on it.
				l := start(t, w, nil)
				install(l, true)
				install(startOn(t, w, l.m, nil), true) // the daemon alone

				setEnv("env_id", "")(w, nil)
				l = start(t, w, nil)
				install(l, false)
				install(startOn(t, w, l.m, nil), false)
				l = start(t, w, nil) // one reboot cures it
				install(l, true)
				install(startOn(t, w, l.m, nil), true)

				// Another place than the bootloader's: it holds what a device has,
				// id included, but no start changes it.
				elsewhere := newWorldOf(scheme)
				for range 3 {
					m, err := w.boot()
					if err != nil {
						t.Fatal(err)
					}
					m.w, m.start.EnvID = elsewhere, strings.Repeat("x", len(m.start.EnvID))
					install(startOn(t, elsewhere, m, nil), false)
				}
			})
		})
	}
}

// TestOneWriteForEachStart: with a bootloader that counts every start the daemon
// writes once at each, and with the boot counter never.
func TestOneWriteForEachStart(t *testing.T) {
	for scheme, want := range map[string]int{uboot.Bootcount: 0, uboot.Bootorder: 1} {
		t.Run(scheme, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorldOf(scheme)
				for range 10 {
					m, err := w.boot()
					if err != nil {
						t.Fatal(err)
					}
					before := w.medium.Writes()
					for range 2 { // the daemon alone, too
						startOn(t, w, m, nil).end()
					}
					if n := w.medium.Writes() - before; n != want || m.start.Slot != "a" {
						t.Errorf("%d writes in slot %s; want %d in a", n, m.start.Slot, want)
					}
				}
			})
		})
	}
}

// TestWrongScheme: what is configured is not what the environment holds.
func TestWrongScheme(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, scheme := range schemes {
			w := newWorldOf(scheme)
			w.scheme = schemes[1-slices.Index(schemes, scheme)]
			m := &machine{w: w, bootID: "boot-1", start: ubootmodel.Start{Slot: "a", EnvID: "factory"}}
			l := startOn(t, w, m, nil)
			_, err := l.Install(l.ctx, ref, InstallOptions{})
			wantName(t, "Install", err, NameEnvironmentDamaged)
			if !strings.Contains(err.Error(), "as in scheme "+scheme) {
				t.Errorf("Install = %v; want it to name the scheme", err)
			}
			l.end()
		}
	})
}
