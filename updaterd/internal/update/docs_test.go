// SPDX-License-Identifier: Apache-2.0

package update

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// ruleDocs says what each rule of Reconcile means.
var ruleDocs = map[string]string{
	"hold: environment unreadable":      "Nothing is done until a person has mended the boot environment.",
	"hold: booted slot unproven":        "A rescue system, an overlay or an NFS root: status works, nothing else does.",
	"idle":                              "Nothing was in hand. The booted slot is put on record as confirmed, if it was not yet.",
	"adopt trial":                       "The journal was lost, or somebody else began the trial: it is judged all the same.",
	"adopt pending reboot":              "The same, before the reboot.",
	"idle: booted slot is bad":          "A person has to mark it good, or to reboot.",
	"idle: primary is bad":              "Only the booted slot can be started: it is made primary.",
	"idle: booted differs from primary": "The primary slot could not be loaded, or was selected since: a person decides.",
	"resume":                            "The work goes on where it was; what was done is verified, not believed.",
	"paused":                            "The work waits for Resume, also after a restart.",
	"attempts spent":                    "The work was begun often enough without getting any further.",
	"installed":                         "The release waits for Activate.",
	"finish activating":                 "A cut, or a kill, between commit point 1 and the journal.",
	"pending reboot":                    "Only the daemon was started again.",
	"activation undone":                 "Somebody else took the target off: the boot environment is right.",
	"finish cancelling":                 "A cut inside Cancel.",
	"cancelled too late":                "A cut inside Cancel, and the target was started: back to the source.",
	"trial":                             "The new system runs for the first time: its checks begin.",
	"trial goes on":                     "The new system was reset during its trial; the bootloader counts.",
	"finish override":                   "A cut between the record of the override and commit point 2.",
	"finish confirming":                 "A cut after commit point 2; or somebody confirmed the slot without us.",
	"environment says no":               "The new system runs, but the boot environment gave it up: it rolls back.",
	"roll back again":                   "A cut between the journal and the boot environment, or a reboot that led to the target again.",
	"confirmed while rolling back":      "Somebody else confirmed the target: the boot environment is right.",
	"rolled back":                       "We decided, and the device is back on the source.",
	"fell back":                         "The bootloader decided: the tries were used up.",
	"not loaded":                        "The bootloader could not even load the target.",
	"started the source":                "The source runs for a reason that cannot be told.",
}

// area is a set of rows with the same answer: allowed values by dimension.
type area struct {
	values [][]string
	answer string
}

// merge joins areas that differ in one dimension only, until none do.
func merge(areas []area) []area {
	for again := true; again; {
		again = false
		for d := len(product) - 1; d >= 0; d-- {
			var out []area
			at := map[string]int{}
			for _, a := range areas {
				key := a.answer
				for i, v := range a.values {
					if i != d {
						key += "|" + strings.Join(v, ",")
					}
				}
				if i, ok := at[key]; ok {
					out[i].values[d] = append(slices.Clone(out[i].values[d]), a.values[d]...)
					again = true
					continue
				}
				at[key] = len(out)
				out = append(out, area{slices.Clone(a.values), a.answer})
			}
			areas = out
		}
	}
	return areas
}

// reconcileTable is the whole product, rows with the same answer joined.
func reconcileTable() string {
	var areas []area
	for r := range rows() {
		p := Reconcile(r.journal(), r.facts())
		var steps []string
		for _, fx := range p.Effects {
			steps = append(steps, fx.String())
		}
		if len(steps) == 0 {
			steps = []string{"nothing"}
		}
		a := area{answer: fmt.Sprintf("%s | %s | %s", p.Rule, strings.Join(steps, " → "), describe(p.Journal))}
		if p.Journal.State == "dreaming" {
			a.answer = strings.TrimSuffix(a.answer, describe(p.Journal)) + "as it was"
		}
		if len(p.Effects) == 0 && p.Journal.State == r.journal().State {
			a.answer = p.Rule + " | nothing | as it was"
		}
		for _, v := range r {
			a.values = append(a.values, []string{v})
		}
		areas = append(areas, a)
	}
	var b strings.Builder
	for _, d := range product {
		fmt.Fprintf(&b, "| %s ", d.name)
	}
	b.WriteString("| rule | effects, in order | then |\n" + strings.Repeat("|---", len(product)+3) + "|\n")
	for _, a := range merge(areas) {
		for i, v := range a.values {
			text := strings.Join(v, ", ")
			if len(v) == len(product[i].values) {
				text = "any"
			} else if left := len(product[i].values) - len(v); left == 1 && len(v) > 2 {
				missing := slices.DeleteFunc(slices.Clone(product[i].values), func(x string) bool { return slices.Contains(v, x) })
				text = "not " + missing[0]
			}
			fmt.Fprintf(&b, "| %s ", text)
		}
		fmt.Fprintf(&b, "| %s |\n", a.answer)
	}
	return b.String()
}

// ruleTable explains the rules.
func ruleTable() string {
	var b strings.Builder
	b.WriteString("| rule | meaning |\n|---|---|\n")
	for _, rule := range slices.Sorted(maps.Keys(ruleDocs)) {
		fmt.Fprintf(&b, "| %s | %s |\n", rule, ruleDocs[rule])
	}
	return b.String()
}

// transitionTable is what next does where it does something.
func transitionTable() string {
	var b strings.Builder
	b.WriteString("| from | event | effects, in order | to |\n|---|---|---|---|\n")
	seen := map[string]bool{}
	for _, s := range States() {
		for jn, j := range sorted(variants(s)) {
			for _, k := range EventKinds() {
				for en, e := range sorted(eventVariants(k, s)) {
					to, effects, err := next(j, e)
					if err != nil || k == EventBroke {
						continue
					}
					var steps []string
					for _, fx := range effects {
						steps = append(steps, fx.String())
					}
					answer := fmt.Sprintf("%s | %s", strings.Join(steps, " → "), describe(to))
					// A variant that makes no difference is not shown.
					if key := string(s) + string(k) + answer; !seen[key] {
						seen[key] = true
						fmt.Fprintf(&b, "| %s%s | %s%s | %s |\n", s, paren(jn), k, paren(en), answer)
					}
				}
			}
		}
	}
	return b.String()
}

// diagram draws next and Reconcile as a mermaid state diagram.
func diagram() string {
	labels := map[[2]State][]string{}
	add := func(from, to State, label string) {
		if from != to && !slices.Contains(labels[[2]State{from, to}], label) {
			labels[[2]State{from, to}] = append(labels[[2]State{from, to}], label)
		}
	}
	for _, s := range States() {
		for _, j := range sorted(variants(s)) {
			for _, k := range EventKinds() {
				for _, e := range sorted(eventVariants(k, s)) {
					if to, _, err := next(j, e); err == nil && k != EventBroke {
						add(s, to.State, string(k))
					}
				}
			}
		}
	}
	for r := range rows() {
		if j := r.journal(); slices.Contains(States(), j.State) {
			p := Reconcile(j, r.facts())
			if rule, abandoned := strings.CutPrefix(p.Rule, "abandon, then "); abandoned {
				add(j.State, StateIdle, "start: abandon")
				add(StateIdle, p.Journal.State, "start: "+rule)
			} else {
				add(j.State, p.Journal.State, "start: "+p.Rule)
			}
		}
	}
	id := func(s State) string { return strings.ReplaceAll(string(s), "-", "_") }
	var b strings.Builder
	b.WriteString("```mermaid\nstateDiagram-v2\n    [*] --> idle\n")
	for _, from := range States() {
		for _, to := range States() {
			if l := labels[[2]State{from, to}]; len(l) > 0 {
				text := strings.Join(l, ", ")
				text = strings.ReplaceAll(text, "start: idle: ", "start: ")
				fmt.Fprintf(&b, "    %s --> %s : %s\n", id(from), id(to), strings.ReplaceAll(text, "start: ", "start·"))
			}
		}
	}
	b.WriteString("```\n")
	return b.String()
}

// TestDocs compares the generated parts of docs/state-machine.md with the code.
func TestDocs(t *testing.T) {
	const path = "../../../docs/state-machine.md"
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(old)
	for name, part := range map[string]string{"diagram": diagram(), "transitions": transitionTable(),
		"rules": ruleTable(), "reconcile": reconcileTable()} {
		begin, end := "<!-- generated: "+name+" -->\n", "<!-- end: "+name+" -->"
		head, rest, ok := strings.Cut(text, begin)
		_, tail, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s: no place for %q", path, name)
		}
		text = head + begin + part + end + tail
	}
	if text == string(old) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the code does: run go test -run TestDocs -update", path)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
