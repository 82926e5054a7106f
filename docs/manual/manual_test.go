// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var helps = map[string]string{
	"--help": `Usage: frob [--lock FILE] COMMAND
       frob --version

Frobs things. This goes
on in a second line.

  frob -a \
      b

Commands:
  one [--now]
        Do it once. It
        is done.
  two  the other thing

"frob help COMMAND" tells more.

Options, which stand first:
  --lock FILE  the "lock"
  -v

Exit codes:
  0  done
Unless it is 0, nothing was done.

Example: frob one
`,
	"help one": "Usage: frob one [--now] SLOT\n\nDo it once. It is done.\n",
	"help two": "Usage: frob two [--mode=fast|slow] FILE\n\n.hidden \\ is 'quoted'\n\nOptions:\n  --mode=fast|slow\n        how\n\nExit codes:\n  0  done\nUnless it is 0, nothing was done.\n",
}

func frob() Program {
	p := Read("frob", 8, "do things", func(args ...string) string { return helps[strings.Join(args, " ")] })
	p.SeeAlso = []string{"one(1)", "two(2)"}
	return p
}

func TestRead(t *testing.T) {
	exits := Section{Title: "Exit codes", Entries: []Entry{{"0", "done"}}, Blocks: []Block{{"Unless it is 0, nothing was done.", false}}}
	want := Program{
		Name: "frob", Section: 8, Summary: "do things", SeeAlso: []string{"one(1)", "two(2)"},
		Text: Text{
			Usage: []string{"frob [--lock FILE] COMMAND", "frob --version"},
			Blocks: []Block{{"Frobs things. This goes on in a second line.", false}, {"frob -a \\\n    b", true},
				{`"frob help COMMAND" tells more.`, false}},
			Sections: []Section{
				{Title: "Commands", Entries: []Entry{{"one [--now]", "Do it once. It is done."}, {"two", "the other thing"}}},
				{Title: "Options", Entries: []Entry{{"--lock FILE", `the "lock"`}, {"-v", ""}}},
				exits,
				{Title: "Example", Blocks: []Block{{"frob one", true}}},
			},
		},
		Commands: []Command{
			{Name: "one", Summary: "Do it once. It is done.", Words: []string{"a", "b"}, Text: Text{
				Usage: []string{"frob one [--now] SLOT"}, Blocks: []Block{{"Do it once. It is done.", false}}}},
			{Name: "two", Summary: "the other thing", Files: true, Text: Text{
				Usage: []string{"frob two [--mode=fast|slow] FILE"}, Blocks: []Block{{`.hidden \ is 'quoted'`, false}},
				Sections: []Section{{Title: "Options", Entries: []Entry{{"--mode=fast|slow", "how"}}}, exits}}},
		},
	}
	if diff := cmp.Diff(want, frob()); diff != "" {
		t.Error(diff)
	}
}

func TestPage(t *testing.T) {
	page := Page(frob())
	for _, want := range []string{
		".TH FROB 8 \"\" updaterd \"System Administration\"\n", ".SH NAME\nfrob \\- do things\n",
		".SH SYNOPSIS\n.nf\nfrob [\\-\\-lock FILE] COMMAND\nfrob \\-\\-version\n.fi\n",
		".RS\n.nf\nfrob \\-a \\e\n    b\n.fi\n.RE\n",
		".SS two\n.B frob two [\\-\\-mode=fast|slow] FILE\n.PP\nThe other thing.\n.PP\n\\&.hidden \\e is 'quoted'\n",
		".SH EXIT STATUS\n.TP\n.B 0\ndone\n.PP\nUnless it is 0", ".BR one (1),\n.BR two (2)\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("page lacks %q", want)
		}
	}
	for _, once := range []string{"Do it once", "Unless it is 0"} {
		if n := strings.Count(page, once); n != 1 {
			t.Errorf("page says %q %d times", once, n)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
}

func TestCompletion(t *testing.T) {
	script := filepath.Join(t.TempDir(), "frob")
	if err := os.WriteFile(script, []byte(Completion(frob())), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		words []string
		want  []string
	}{
		{[]string{""}, []string{"help", "--lock", "-v", "one", "two"}},
		{[]string{"help", "t"}, []string{"two"}},
		{[]string{"--lock", "x", "one", "--"}, []string{"--help", "--now"}},
		{[]string{"one", ""}, []string{"--help", "--now", "a", "b"}},
		{[]string{"two", "--mode", "=", ""}, []string{"fast", "slow"}},
		{[]string{"two", "manual_t"}, []string{"manual_test.go"}},
		{[]string{"one", "manual_t"}, nil},
	} {
		run := `. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _frob; printf '%s\n' "${COMPREPLY[@]}"`
		out, err := exec.Command("bash", append([]string{"-uc", run, "bash", script, "frob"}, c.words...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got := strings.Fields(string(out)); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.words, got, c.want)
		}
	}
}
