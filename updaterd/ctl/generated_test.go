// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/updaterd/updaterd/docs/manual"
	"github.com/updaterd/updaterd/updaterd/client"
)

func TestGenerated(t *testing.T) {
	p := description()
	manual.Check(t, map[string]string{
		"../data/man/updaterctl.1":      manual.Page(p),
		"../data/completion/updaterctl": manual.Completion(p),
	})
}

// description is what updaterctl says about itself, and what only its manual says.
func description() manual.Program {
	p := manual.Read("updaterctl", 1, "control the A/B updater of this device", func(args ...string) string {
		var out strings.Builder
		run(context.Background(), "", args, &out, &out)
		return out.String()
	})
	for i := range p.Commands {
		said, c := &p.Commands[i], find(p.Commands[i].Name)
		said.Words, said.Files = c.words, c.files
		said.Blocks = said.Blocks[1:] // its name and summary, which a heading says
		said.Sections = slices.DeleteFunc(said.Sections, func(s manual.Section) bool { return s.Title == "Exit codes" })
		var codes []string
		for _, code := range c.allExits() {
			codes = append(codes, strconv.Itoa(code))
		}
		said.Sections = append(said.Sections, manual.Section{Title: "Exit status", Blocks: []manual.Block{{Text: strings.Join(codes, ", ")}}})
	}
	output := manual.Section{Title: "JSON output", Blocks: []manual.Block{{Text: "With --json a command prints one JSON document, install and watch one on each line. " +
		"Names are only ever added; sizes are bytes, times are RFC 3339 in UTC."}}}
	p.Sections = append(p.Sections, output)
	for _, s := range schemas() {
		printed := manual.Section{Title: "JSON: " + s.name + ", " + s.about}
		for _, f := range s.fields {
			printed.Entries = append(printed.Entries, manual.Entry{Term: f.name + " (" + f.kind + ")", Text: f.about})
		}
		p.Sections = append(p.Sections, printed)
	}
	status := manual.Section{Title: "Exit codes"}
	for _, e := range exits() {
		status.Entries = append(status.Entries, manual.Entry{Term: strconv.Itoa(e.code), Text: e.meaning})
	}
	p.Sections = append(p.Sections, status, manual.Section{Title: "Environment", Entries: []manual.Entry{
		{Term: "DBUS_SYSTEM_BUS_ADDRESS", Text: "where the system bus is, if it is not where it always is"}}})
	p.SeeAlso = []string{"updaterd(8)", "updater-bootctl(8)", "busctl(1)", "polkit(8)"}
	return p
}

// cells are the cells of the lines of a Markdown table whose first one matches.
func cells(t *testing.T, path, first string) map[string][]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		parts := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		if m := regexp.MustCompile("^" + first + "$").FindStringSubmatch(parts[0]); m != nil && len(parts) > 1 {
			if rows[m[1]] != nil {
				t.Errorf("%s has %s twice", path, m[1])
			}
			rows[m[1]] = parts
		}
	}
	return rows
}

func TestErrorsAreDocumented(t *testing.T) {
	const path = "../../docs/errors.md"
	rows := cells(t, path, "`([A-Za-z]+)`")
	for _, name := range client.Names() {
		row := rows[string(name)]
		delete(rows, string(name))
		if len(row) != 4 || row[2] == "" {
			t.Errorf("%s is not in %s: %q", name, path, row)
			continue
		}
		if row[1] != strconv.Itoa(codeOf(name)) {
			t.Errorf("%s has exit code %d, documented is %s", name, codeOf(name), row[1])
		}
	}
	for name := range rows {
		t.Errorf("%s has %s, which is nobody's error", path, name)
	}
	codes := cells(t, path, "([0-9]+)")
	for _, e := range exits() {
		row := codes[strconv.Itoa(e.code)]
		delete(codes, strconv.Itoa(e.code))
		if len(row) != 2 || row[1] != e.meaning {
			t.Errorf("exit code %d %q is documented as %q", e.code, e.meaning, row)
		}
	}
	if len(codes) != 0 {
		t.Errorf("%s has exit codes that are not used: %v", path, codes)
	}
}

func TestEachErrorHasACode(t *testing.T) {
	var used []int
	for _, name := range append(client.Names(), client.Unreachable) {
		used = append(used, codeOf(name))
		if codeOf(name) == exitOK {
			t.Errorf("%s is no error", name)
		}
	}
	for _, e := range exits() {
		if e.code != exitOK && e.code != exitInterrupted && !slices.Contains(used, e.code) {
			t.Errorf("exit code %d is given to nothing", e.code)
		}
	}
}

// kind names the JSON type that a Go type becomes.
func kind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Uint64, reflect.Float64:
		return "number"
	case reflect.Map:
		return "object"
	case reflect.Pointer:
		return "object or null"
	case reflect.Slice:
		return "array of " + kind(t.Elem())
	case reflect.Struct:
		if t.Name() == "Time" {
			return "string"
		}
		return "object"
	}
	return t.String()
}

func TestSchemasAreTheTypes(t *testing.T) {
	types := map[string]any{
		"status": client.Status{}, "slot": client.Slot{}, "job": jobLine{}, "result": client.Result{},
		"release": client.Release{}, "image": client.Image{}, "detached": detached{},
		"channel": client.Channel{}, "offer": client.Offer{},
	}
	names := map[string]bool{}
	for _, s := range schemas() {
		names[s.name] = true
		var said, got []string
		for _, f := range s.fields {
			said = append(said, f.name+" "+f.kind)
		}
		for _, f := range reflect.VisibleFields(reflect.TypeOf(types[s.name])) {
			if !f.Anonymous {
				got = append(got, f.Tag.Get("json")+" "+kind(f.Type))
			}
		}
		slices.Sort(said)
		slices.Sort(got)
		if diff := cmp.Diff(said, got); diff != "" {
			t.Errorf("%s, documented and printed:\n%s", s.name, diff)
		}
	}
	for _, c := range commands() {
		if c.schema != "" && !names[c.schema] {
			t.Errorf("%s prints %s, which is not described", c.name, c.schema)
		}
	}
}

func TestCommandsSayEnough(t *testing.T) {
	for _, c := range commands() {
		if c.summary == "" || len(c.description) == 0 || c.root == "" || len(c.examples) == 0 {
			t.Errorf("%s says too little about itself", c.name)
		}
		for _, e := range c.examples {
			if !strings.Contains(e.line, "updaterctl "+c.name) || e.does == "" {
				t.Errorf("%s: example %q", c.name, e.line)
			}
		}
		if len(c.exitList()) != len(c.allExits()) {
			t.Errorf("%s: exit codes %v are not all in the table", c.name, c.allExits())
		}
		for _, line := range strings.Split(c.help(), "\n") {
			if len(line) > 120 {
				t.Errorf("%s: help has a line of %d bytes: %s", c.name, len(line), line)
			}
		}
	}
}

// bash runs the completion for the words of a line; the last one is completed.
func bash(t *testing.T, words ...string) []string {
	t.Helper()
	script := `. ../data/completion/updaterctl; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _updaterctl; printf '%s\n' "${COMPREPLY[@]}"`
	out, err := exec.Command("bash", append([]string{"-uc", script, "bash"}, words...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Fields(string(out))
}

func TestCompletion(t *testing.T) {
	for _, tt := range []struct {
		words []string
		want  []string
	}{
		{[]string{"updaterctl", "mark"}, []string{"mark-good", "mark-bad"}},
		{[]string{"updaterctl", "help", "ins"}, []string{"inspect", "install"}},
		{[]string{"updaterctl", "install", "--m"}, []string{"--mode"}},
		{[]string{"updaterctl", "install", "--mode", "=", "st"}, []string{"store", "stream"}},
		{[]string{"updaterctl", "install", "--mode", "="}, []string{"auto", "store", "stream"}},
		{[]string{"updaterctl", "install", "--mode", "a"}, []string{"auto"}},
		{[]string{"updaterctl", "install", "generated_t"}, []string{"generated_test.go"}},
		{[]string{"updaterctl", "mark-bad", "b"}, []string{"booted", "b"}},
		{[]string{"updaterctl", "nonsense", ""}, nil},
	} {
		if got := bash(t, tt.words...); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.words, got, tt.want)
		}
	}
}
