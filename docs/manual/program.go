// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A Program describes itself.
type Program struct {
	Name    string
	Section int
	Summary string // without an article or a period
	Text
	Commands []Command
	SeeAlso  []string // as in "polkit(8)"
}

// A Command is a verb of a program.
type Command struct {
	Name, Summary string
	Text
	Words []string // what an argument may be, if that can be listed
	Files bool     // an argument or an option may be a file
}

// A Text is a help text.
type Text struct {
	Usage    []string
	Blocks   []Block
	Sections []Section
}

// A Section has a title, and either explains terms or says something.
type Section struct {
	Title   string
	Entries []Entry
	Blocks  []Block
}

// An Entry explains a term.
type Entry struct{ Term, Text string }

// A Block is a paragraph, or lines to type.
type Block struct {
	Text  string
	Typed bool
}

// section is the section with that title, or an empty one.
func (t *Text) section(title string) Section {
	for _, s := range t.Sections {
		if s.Title == title {
			return s
		}
	}
	return Section{}
}

var option = regexp.MustCompile(`(?:^|[\s\[])(--?[a-z][a-z-]*)`)

// options are the options that the text names, and what their values may be.
func (t *Text) options() (names []string, values map[string][]string) {
	values = make(map[string][]string)
	from := slices.Clone(t.Usage)
	for _, e := range t.section("Options").Entries {
		from = append(from, e.Term)
		if name, list, found := strings.Cut(e.Term, "="); found && strings.Contains(list, "|") {
			values[name] = strings.Split(list, "|")
		}
	}
	for _, s := range from {
		for _, m := range option.FindAllStringSubmatch(s, -1) {
			if !slices.Contains(names, m[1]) {
				names = append(names, m[1])
			}
		}
	}
	return names, values
}

var update = flag.Bool("update", false, "write the files that are made of what the programs say")

// Check compares files with what they should hold, or writes them with -update.
func Check(t *testing.T, files map[string]string) {
	t.Helper()
	for path, want := range files {
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s is not what the program says; run: go generate ./...\n%s", path, diff)
		}
	}
}
