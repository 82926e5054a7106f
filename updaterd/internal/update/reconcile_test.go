// SPDX-License-Identifier: Apache-2.0

package update

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/updaterd/updaterd/bootctl"
)

func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

// The dimensions of the product that state-machine.md asks for. The job's
// source is slot a, its target slot b.
type dimension struct {
	name   string
	values []string
}

var product = []dimension{
	{"journal", []string{"idle", "absent", "corrupt", "newer schema", "unknown state",
		"downloading", "downloading (paused)", "downloading (attempts spent)",
		"installing", "installing (paused)", "installing (attempts spent)",
		"installed", "installed (kept)", "installed (attempts spent)",
		"pending-reboot", "pending-reboot (auto reboot)", "pending-reboot (cancelling)",
		"trial", "trial (override)", "trial (source unconfirmed)",
		"rolling-back", "rolling-back (cancelling)", "rolling-back (again and again)"}},
	{"booted", []string{"source", "target", "other", "unproven"}},
	{"trial", []string{"yes", "no", "unreadable"}},
	{"primary", []string{"source", "target"}},
	{"bad", []string{"none", "source", "target", "both"}},
	{"boot id", []string{"same", "other"}},
	{"migration", []string{"none due", "due", "due in the other slot"}},
}

type row []string // one value of each dimension

func (r row) journal() Journal {
	name, flag, _ := strings.Cut(strings.TrimSuffix(r[0], ")"), " (")
	j := Journal{State: State(name), LastID: 7, Job: testJob()}
	switch name {
	case "idle", "absent", "corrupt", "newer schema": // what load makes of them
		return Journal{State: StateIdle, LastID: 7}
	case "unknown state":
		j.State = "dreaming"
	case "rolling-back":
		j.Job.Reason, j.Job.Rollbacks = "unit app.service failed", 1
	}
	switch flag {
	case "paused":
		j.Job.Paused = true
	case "attempts spent":
		j.Job.Attempts = 3
	case "kept":
		j.Job.Options.KeepInstalled = true
	case "auto reboot":
		j.Job.Options.Reboot = true
	case "cancelling":
		j.Job.Cancelling = true
	case "override":
		j.Job.Override = true
	case "source unconfirmed":
		j.Job.SourceConfirmed = false
	case "again and again":
		j.Job.Rollbacks = 3
	}
	return j
}

func (r row) facts() Facts {
	slot := map[string]bootctl.Slot{"source": "a", "target": "b", "other": "c"}
	f := Facts{Now: testNow, BootID: "boot-1", Booted: slot[r[1]], MaxAttempts: 3, Confirmed: []bootctl.Slot{"a"}}
	if r[2] == "unreadable" {
		f.Unreadable = true
	} else {
		f.Boot = bootctl.Status{Primary: slot[r[3]], Trial: r[2] == "yes"}
		if f.Boot.Trial {
			f.Boot.TriesLeft = 2
		}
		f.Boot.Bad = map[string][]bootctl.Slot{"source": {"a"}, "target": {"b"}, "both": {"a", "b"}}[r[4]]
	}
	if r[5] == "other" {
		f.BootID = "boot-2"
	}
	switch r[6] {
	case "due":
		f.Due = &Due{Job: 7, Slot: f.Booted}
	case "due in the other slot":
		f.Due = &Due{Job: 7, Slot: f.Booted.Other()}
	}
	return f
}

// rows enumerates the product.
func rows() iter.Seq[row] {
	return func(yield func(row) bool) {
		var walk func(prefix row) bool
		walk = func(prefix row) bool {
			if len(prefix) == len(product) {
				return yield(slices.Clone(prefix))
			}
			for _, v := range product[len(prefix)].values {
				if !walk(append(prefix, v)) {
					return false
				}
			}
			return true
		}
		walk(nil)
	}
}

// TestReconcileProduct goes through all that a start can find.
func TestReconcileProduct(t *testing.T) {
	n := 0
	rules := map[string]int{}
	for r := range rows() {
		n++
		j, f := r.journal(), r.facts()
		before, _ := json.Marshal(j)
		p := Reconcile(j, f)
		what := fmt.Sprintf("Reconcile%q", []string(r))
		if after, _ := json.Marshal(j); !bytes.Equal(before, after) {
			t.Errorf("%s changed its input", what)
		}
		if p.Rule == "" {
			t.Fatalf("%s: missing row", what)
		}
		rules[p.Rule]++
		checkPlan(t, what, j, f, p)
		checkRepeat(t, what, j, f, p)
	}
	want := 1
	for _, d := range product {
		want *= len(d.values)
	}
	if n != want {
		t.Fatalf("%d rows enumerated; want %d", n, want)
	}
	for rule := range rules {
		if _, ok := ruleDocs[strings.TrimPrefix(rule, "abandon, then ")]; !ok {
			t.Errorf("rule %q is not explained in docs/state-machine.md", rule)
		}
	}
	for rule := range ruleDocs {
		if rules[rule] == 0 {
			t.Errorf("rule %q is explained, but no row uses it", rule)
		}
	}
	t.Logf("%d rows, %d rules", n, len(rules))
}

type fataler interface {
	Helper()
	Errorf(format string, args ...any)
}

// checkPlan holds what is true of every plan.
func checkPlan(t fataler, what string, j Journal, f Facts, p Plan) {
	t.Helper()
	if p.Journal.State == "dreaming" && !f.Unreadable && f.Booted.Valid() {
		t.Errorf("%s: an unknown state stays", what)
	}
	if (f.Unreadable || !f.Booted.Valid()) && len(p.Effects) > 0 {
		t.Errorf("%s: does %v without knowing where it is", what, p.Effects)
	}
	boot := f.Boot
	for _, fx := range p.Effects {
		switch fx.Kind {
		case DoApply:
			if boot.Trial && fx.Change.Trial == bootctl.TrialEnd && boot.Primary == f.Booted && fx.Change.Primary == f.Booted &&
				j.Job != nil && f.Booted == j.Job.Target && !(j.Job.Override && j.State == StateTrial) {
				t.Errorf("%s: confirms without a check", what)
			}
			boot = changed(boot, fx.Change)
			if boot.IsBad("a") && boot.IsBad("b") && len(fx.Change.Bad) > 0 {
				t.Errorf("%s: %s leaves no slot to start", what, fx)
			}
			if boot.IsBad(boot.Primary) {
				t.Errorf("%s: %s makes a bad slot primary", what, fx)
			}
		case DoInstall, DoDownload:
			if f.Booted != j.Job.Source {
				t.Errorf("%s: works on the slot that runs", what)
			}
			if fx.Kind == DoInstall && !boot.IsBad(j.Job.Target) {
				t.Errorf("%s: writes a slot that is not bad", what)
			}
		case DoCheck:
			if !boot.Trial || boot.Primary != f.Booted {
				t.Errorf("%s: judges a slot that is not on trial", what)
			}
		case DoMigrate:
			if boot.Trial || boot.Primary != f.Booted || boot.IsBad(f.Booted) || j.State == StateIdle && (f.Due == nil || f.Due.Slot != f.Booted) {
				t.Errorf("%s: migrates to what is not confirmed", what)
			}
		case DoReboot:
			if boot.Primary == f.Booted && boot.Trial && !untraceable(p.Journal, f) {
				t.Errorf("%s: reboots for nothing", what)
			}
		}
	}
}

// changed is what the boot environment says after c.
func changed(s bootctl.Status, c bootctl.Change) bootctl.Status {
	if c.Primary != "" {
		s.Primary = c.Primary
	}
	switch c.Trial {
	case bootctl.TrialBegin:
		s.Trial, s.TriesLeft = true, 3
	case bootctl.TrialEnd:
		s.Trial, s.TriesLeft = false, 0
	}
	s.Bad = slices.Concat(s.Bad, c.Bad)
	s.Bad = slices.DeleteFunc(s.Bad, func(b bootctl.Slot) bool { return slices.Contains(c.NotBad, b) })
	slices.Sort(s.Bad)
	s.Bad = slices.Compact(s.Bad)
	return s
}

// checkRepeat: a daemon that is killed after k effects and started again, in
// the same run of the kernel, ends in the same state with the same result.
func checkRepeat(t fataler, what string, j Journal, f Facts, p Plan) {
	t.Helper()
	for k := range p.Effects {
		now, facts := j, f
		for _, fx := range p.Effects[:k] {
			switch fx.Kind {
			case DoJournal:
				now = *fx.Journal
			case DoApply:
				facts.Boot = changed(facts.Boot, fx.Change)
			case DoRemember, DoSlots:
				facts.Confirmed = append(slices.Clone(facts.Confirmed), fx.Job.Target)
			}
		}
		again := Reconcile(now, facts)
		for range 3 { // a plan may end a job and then find an idle device
			last := again
			for _, fx := range again.Effects {
				if fx.Kind == DoApply {
					facts.Boot = changed(facts.Boot, fx.Change)
				}
			}
			again = Reconcile(again.Journal, facts)
			if rests := len(again.Effects) == 0 || again.Effects[0].Kind == DoMigrate; rests || again.Journal.State != StateIdle {
				again = last
				break
			}
		}
		if again.Journal.State == p.Journal.State || p.Rule == "resume" && again.Rule == "attempts spent" {
			continue
		}
		t.Errorf("%s (%s): cut before effect %d (%s): %s, then %s by rule %q; want %s", what, p.Rule, k, p.Effects[k],
			describe(now), describe(again.Journal), again.Rule, describe(p.Journal))
	}
}

func genFacts(t *rapid.T) Facts {
	slot := rapid.SampledFrom([]bootctl.Slot{"a", "b", "", "c"})
	bad := rapid.SampledFrom([][]bootctl.Slot{nil, {"a"}, {"b"}, {"a", "b"}})
	return Facts{Now: testNow, BootID: rapid.SampledFrom([]string{"", "boot-1", "boot-2"}).Draw(t, "boot id"),
		Booted: slot.Draw(t, "booted"), Unreadable: rapid.Bool().Draw(t, "unreadable"),
		Boot: bootctl.Status{Primary: slot.Draw(t, "primary"), Trial: rapid.Bool().Draw(t, "trial"),
			TriesLeft: rapid.IntRange(0, 9).Draw(t, "tries"), Bad: bad.Draw(t, "bad")},
		Confirmed: bad.Draw(t, "confirmed"), MaxAttempts: rapid.IntRange(0, 4).Draw(t, "max")}
}

func genJournal(t *rapid.T) Journal {
	j := Journal{State: rapid.SampledFrom(append(States(), "dreaming", "")).Draw(t, "state"),
		LastID: rapid.Uint64Range(0, 9).Draw(t, "last id")}
	if rapid.Bool().Draw(t, "has job") {
		slot := rapid.SampledFrom([]bootctl.Slot{"a", "b"})
		source := slot.Draw(t, "source")
		b := func(name string) bool { return rapid.Bool().Draw(t, name) }
		j.Job = &Job{ID: rapid.Uint64Range(0, 9).Draw(t, "id"), Digest: rapid.SampledFrom([]string{"", "sha256:22"}).Draw(t, "digest"),
			Mode: rapid.SampledFrom([]string{"store", "stream"}).Draw(t, "mode"), Source: source, Target: source.Other(),
			SourceConfirmed: b("confirmed"), Attempts: rapid.IntRange(0, 4).Draw(t, "attempts"), Paused: b("paused"),
			BootID: rapid.SampledFrom([]string{"", "boot-1"}).Draw(t, "job boot id"), Cancelling: b("cancelling"),
			Override: b("override"), Rollbacks: rapid.IntRange(0, 4).Draw(t, "roll-backs"),
			Options: InstallOptions{KeepInstalled: b("keep"), Reboot: b("reboot")}}
	}
	return j
}

// TestReconcileTotal: also what cannot be does not make it panic.
func TestReconcileTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if p := Reconcile(genJournal(t), genFacts(t)); p.Rule == "" {
			t.Fatal("missing row")
		}
	})
}

func FuzzReconcile(f *testing.F) {
	good, err := encodeRecord(Journal{State: StateTrial, LastID: 7, Job: testJob()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, "a", "b", true, uint8(0), "boot-1")
	f.Add([]byte("{}"), "b", "b", false, uint8(3), "")
	f.Fuzz(func(t *testing.T, data []byte, booted, primary string, trial bool, bad uint8, bootID string) {
		j, err := decodeJournal(data)
		if err != nil {
			j = Journal{State: StateIdle}
		}
		facts := Facts{Now: testNow, BootID: bootID, Booted: bootctl.Slot(booted), MaxAttempts: 3,
			Boot: bootctl.Status{Primary: bootctl.Slot(primary), Trial: trial}}
		if bad&1 != 0 {
			facts.Boot.Bad = append(facts.Boot.Bad, "a")
		}
		if bad&2 != 0 {
			facts.Boot.Bad = append(facts.Boot.Bad, "b")
		}
		p := Reconcile(j, facts)
		if p.Rule == "" {
			t.Fatal("missing row")
		}
		if err := p.Journal.validate(); err != nil {
			t.Fatalf("rule %q: invalid journal: %v", p.Rule, err)
		}
		checkPlan(t, "Reconcile", j, facts, p)
	})
}
