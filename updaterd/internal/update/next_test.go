// SPDX-License-Identifier: Apache-2.0

package update

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/updaterd/updaterd/bootctl"
)

var update = flag.Bool("update", false, "write the golden files and docs/state-machine.md anew")

var testNow = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

// testJob is a job of slot a that updates slot b.
func testJob() *Job {
	return &Job{ID: 7, Ref: "https://example.com/v2.upb", Digest: "sha256:22", Version: "2", Sequence: 20, Floor: 10,
		Mode: "store", Source: "a", Target: "b", SourceConfirmed: true, Attempts: 1, BootID: "boot-1", Tries: 3}
}

// variants are the journals of a state that next may treat differently.
func variants(s State) map[string]Journal {
	j := func(change func(*Job)) Journal {
		job := testJob()
		if change != nil {
			change(job)
		}
		return Journal{State: s, LastID: 7, Job: job}
	}
	switch s {
	case StateIdle:
		last := Result{Job: 7, Outcome: Success, Message: "slot b is confirmed"}
		again := last
		again.Error, again.Message = NameNotMigrated, last.Message+notMigrated+"exited with status 1"
		return map[string]Journal{"": {State: s, LastID: 7}, "success": {State: s, LastID: 7, Last: &last}, "not migrated": {State: s, LastID: 7, Last: &again}}
	case StateDownloading, StateInstalling:
		out := map[string]Journal{"": j(nil), "paused": j(func(j *Job) { j.Paused = true }),
			"attempt 2": j(func(j *Job) { j.Attempts = 2 })}
		if s == StateInstalling {
			out["keep installed"] = j(func(j *Job) { j.Options.KeepInstalled = true })
			out["auto reboot"] = j(func(j *Job) { j.Options.Reboot = true })
		}
		return out
	case StatePendingReboot:
		return map[string]Journal{"": j(nil), "cancelling": j(func(j *Job) { j.Cancelling = true })}
	case StateTrial:
		return map[string]Journal{"": j(nil), "source unconfirmed": j(func(j *Job) { j.SourceConfirmed = false }),
			"roll-backs spent": j(func(j *Job) { j.Rollbacks = 3 }),
			"source unknown":   j(func(j *Job) { j.Adopted, j.SourceConfirmed = true, false })}
	}
	return map[string]Journal{"": j(nil)}
}

// eventVariants are the events of a kind that next may treat differently.
func eventVariants(k EventKind, s State) map[string]Event {
	f := Facts{Now: testNow, BootID: "boot-1", Booted: "a", MaxAttempts: 3,
		Boot: bootctl.Status{Primary: "a", Bad: []bootctl.Slot{"b"}}}
	if s == StateTrial || s == StateRollingBack {
		f.Booted, f.Boot = "b", bootctl.Status{Primary: "b", Trial: true, TriesLeft: 2}
	}
	e := Event{Kind: k, Facts: f, Name: NameMedium, Reason: "the reason"}
	with := func(change func(*Event)) Event { x := e; change(&x); return x }
	unproven := with(func(e *Event) { e.Booted = "" })
	switch k {
	case EventMigrated, EventUnmigrated:
		return map[string]Event{"": with(func(e *Event) { e.Due = &Due{Job: 7, Slot: "b"} }), "of an earlier job": with(func(e *Event) { e.Due = &Due{Job: 6, Slot: "b"} })}
	case EventInstall:
		job := testJob()
		job.ID = 0
		stream := *job
		stream.Mode = "stream"
		return map[string]Event{"store": with(func(e *Event) { e.Job = job }), "stream": with(func(e *Event) { e.Job = &stream }),
			"while migrating": with(func(e *Event) { e.Job = job; e.Migrating = true })}
	case EventActivate:
		return map[string]Event{"": e, "fresh": with(func(e *Event) { e.Fresh = true }), "booted slot unproven": unproven}
	case EventResume, EventCancel, EventDownloaded, EventWritten, EventVerified:
		return map[string]Event{"": e, "booted slot unproven": unproven}
	case EventProgressed:
		return map[string]Event{"further": with(func(e *Event) { e.Mark = 3 }), "no further": e}
	case EventFailed:
		return map[string]Event{"medium": e, "network": with(func(e *Event) { e.Name = NameNetwork })}
	case EventHealthy, EventUnhealthy:
		out := map[string]Event{"": e}
		if k == EventUnhealthy {
			out["source bad"] = with(func(e *Event) { e.Boot.Bad = []bootctl.Slot{"a"} })
			out["environment unreadable"] = with(func(e *Event) { e.Unreadable = true })
		}
		if s == StateTrial {
			out["confirmed by somebody else"] = with(func(e *Event) { e.Boot = bootctl.Status{Primary: "b"} })
			out["called off by somebody else"] = with(func(e *Event) { e.Boot = bootctl.Status{Primary: "a"} })
		}
		return out
	case EventBroke:
		back := Journal{State: StateRollingBack, LastID: 7, Job: testJob()}
		// On the target, on trial, with the journal in the state that it could not be written in.
		unwritten := func(state State, change func(*Event, *Job)) Event {
			return with(func(e *Event) {
				job := testJob()
				e.Booted, e.Boot = "b", bootctl.Status{Primary: "b", Trial: true, TriesLeft: 2}
				change(e, job)
				e.Broke = saved(Journal{State: state, LastID: 7, Job: job})
			})
		}
		plain := map[string]Event{
			"J":           with(func(e *Event) { e.Broke = saved(Journal{State: StateIdle}) }),
			"J roll-back": with(func(e *Event) { e.Broke = saved(back) }),
			"B":           with(func(e *Event) { e.Broke = applied(rollback(back)) }),
		}
		if s == StateDownloading || s == StateInstalling {
			return plain
		}
		maps.Copy(plain, map[string]Event{
			"J trial":               unwritten(StateTrial, func(_ *Event, j *Job) { j.BootID = "boot-2" }),
			"J trial, healthy":      unwritten(StateTrial, func(*Event, *Job) {}),
			"J trial, no way back":  unwritten(StateTrial, func(e *Event, _ *Job) { e.Boot.Bad = []bootctl.Slot{"a"} }),
			"J trial, unhealthy":    unwritten(StateTrial, func(e *Event, j *Job) { e.Boot.Bad, j.Reason = []bootctl.Slot{"a"}, "the verdict" }),
			"J trial, override":     unwritten(StateTrial, func(_ *Event, j *Job) { j.Override = true }),
			"J trial, called off":   unwritten(StateTrial, func(e *Event, _ *Job) { e.Boot = bootctl.Status{Primary: "a"} }),
			"J roll-back, on trial": unwritten(StateRollingBack, func(_ *Event, j *Job) { j.Reason = "the verdict" }),
		})
		return plain
	}
	return map[string]Event{"": e}
}

// TestNextTable compares what every event does in every state with the table
// that people have looked at.
func TestNextTable(t *testing.T) {
	var b strings.Builder
	cells, refused := 0, 0
	for _, s := range States() {
		for jn, j := range sorted(variants(s)) {
			for _, k := range EventKinds() {
				for en, e := range sorted(eventVariants(k, s)) {
					cells++
					before, _ := json.Marshal(j)
					to, effects, err := next(j, e)
					if after, _ := json.Marshal(j); !bytes.Equal(before, after) {
						t.Errorf("next(%s %s, %s %s) changed its input", s, jn, k, en)
					}
					fmt.Fprintf(&b, "%s%s | %s%s ", s, paren(jn), k, paren(en))
					if err != nil {
						refused++
						fmt.Fprintf(&b, "!! %s: %v\n", nameOf(err), err)
						if len(effects) > 0 {
							t.Errorf("next(%s %s, %s %s) returned effects and the error %v", s, jn, k, en, err)
						}
						continue
					}
					fmt.Fprintf(&b, "-> %s\n", describe(to))
					for _, fx := range effects {
						fmt.Fprintf(&b, "\t%s\n", fx)
					}
					checkEffects(t, fmt.Sprintf("next(%s %s, %s %s)", s, jn, k, en), j, to, effects)
				}
			}
		}
	}
	t.Logf("%d cells, %d of them refused", cells, refused)
	golden(t, filepath.Join("testdata", "next.golden"), b.String())
}

// checkEffects holds what is true of every list of effects.
func checkEffects(t *testing.T, what string, from, to Journal, effects []Effect) {
	t.Helper()
	last := from
	barred := from.State != StateIdle && from.State != StateDownloading
	for _, fx := range effects {
		switch fx.Kind {
		case DoJournal:
			last = *fx.Journal
			if err := last.validate(); err != nil {
				t.Errorf("%s: writes an invalid journal: %v", what, err)
			}
			if last.State == StateInstalling && !barred {
				t.Errorf("%s: journal says installing before the boot environment bars the target", what)
			}
		case DoKeep:
			last = *fx.Journal
		case DoApply:
			barred = len(fx.Change.Bad) > 0 && fx.Change.BothCopies
		case DoInstall:
			if !barred {
				t.Errorf("%s: writes a target that is not barred in both copies", what)
			}
		}
	}
	if diff := cmp.Diff(to, last); diff != "" {
		t.Errorf("%s: the journal that stands is not the last one written:\n%s", what, diff)
	}
}

func paren(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run go test -run %s -update)", err, t.Name())
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s is not what the code does (run go test -run %s -update and read the difference):\n%s", path, t.Name(), diff)
	}
}

// TestNextRefusesWithoutEffects: whatever comes, next does not panic, and an
// event that is refused changes nothing.
func TestNextRefusesWithoutEffects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := genJournal(t)
		e := Event{Kind: rapid.SampledFrom(EventKinds()).Draw(t, "kind"), Facts: genFacts(t), Job: j.Job}
		if e.Kind == EventBroke {
			e.Broke = applied(bootctl.Change{Bad: []bootctl.Slot{"b"}})
		}
		to, effects, err := next(j, e)
		if err != nil {
			var named Named
			if !errors.As(err, &named) {
				t.Fatalf("error without a name: %v", err)
			}
			if len(effects) != 0 {
				t.Fatalf("effects %v with the error %v", effects, err)
			}
			return
		}
		if err := to.validate(); err != nil && j.validate() == nil {
			t.Fatalf("invalid journal: %v", err)
		}
	})
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		"short":                        "short",
		"bad \xff byte":                "bad ? byte",
		strings.Repeat("x", 501):       strings.Repeat("x", 500) + "…",
		strings.Repeat("x", 499) + "é": strings.Repeat("x", 499) + "…",
	} {
		if got := clip(in); got != want {
			t.Errorf("clip(%.20q…) = %.20q…; want %.20q…", in, got, want)
		}
	}
}

func TestErrorNames(t *testing.T) {
	cause := errors.New("cause")
	err := fmt.Errorf("do: %w", errorf(NameMedium, "read slot: %w", cause))
	if nameOf(err) != NameMedium || !errors.Is(err, cause) {
		t.Errorf("nameOf(%v) = %s, cause found: %v", err, nameOf(err), errors.Is(err, cause))
	}
	if nameOf(cause) != NameInternal {
		t.Errorf("nameOf(%v) = %s; want %s", cause, nameOf(cause), NameInternal)
	}
	e := &Error{Name: NameBusy, Message: "one", Err: cause}
	if e.Error() != "one: cause" || reflect.TypeOf(e).Kind() != reflect.Pointer {
		t.Errorf("Error() = %q", e.Error())
	}
}
