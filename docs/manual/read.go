// SPDX-License-Identifier: Apache-2.0

package manual

import "strings"

// Read makes the description of a program out of its help texts: help() is that
// of the program, help("help", COMMAND) that of a command. They look like this:
//
//	Usage: program [--option VALUE] COMMAND
//
//	What it does. Lines with an indent, outside of a section, are to be typed.
//
//	Options:
//	  --option VALUE  what it is, or so
//	        in the lines below
func Read(name string, section int, summary string, help func(args ...string) string) Program {
	p := Program{Name: name, Section: section, Summary: summary, Text: parse(help("--help"))}
	for _, e := range p.section("Commands").Entries {
		command := strings.Fields(e.Term)[0]
		c := Command{Name: command, Summary: e.Text, Text: parse(help("help", command)), Files: true}
		if strings.Contains(strings.Join(c.Usage, " "), "SLOT") {
			c.Words, c.Files = []string{"a", "b"}, false
		}
		p.Commands = append(p.Commands, c)
	}
	return p
}

// parse reads a help text.
func parse(help string) Text {
	var t Text
	in := -1 // index of the section; -1: none
	blocks := func() *[]Block {
		if in >= 0 {
			return &t.Sections[in].Blocks
		}
		return &t.Blocks
	}
	begin := func(title string) {
		t.Sections = append(t.Sections, Section{Title: title})
		in = len(t.Sections) - 1
	}
	usage, blank := false, true
	for line := range strings.Lines(help) {
		line = strings.TrimRight(line, " \n")
		text := strings.TrimSpace(line)
		indent := len(line) - len(strings.TrimLeft(line, " "))
		first, found := strings.CutPrefix(line, "Usage: ")
		switch {
		case text == "":
			usage = false
		case found:
			t.Usage, usage = append(t.Usage, first), true
		case usage:
			t.Usage = append(t.Usage, text)
		case indent == 0 && strings.HasSuffix(line, ":") && blank:
			title, _, _ := strings.Cut(strings.TrimSuffix(line, ":"), ",")
			begin(title)
		case strings.HasPrefix(line, "Example: "):
			begin("Example")
			*blocks() = append(*blocks(), Block{Text: strings.TrimPrefix(line, "Example: "), Typed: true})
		case in >= 0 && indent == 2:
			term, about, _ := strings.Cut(text, "  ")
			s := &t.Sections[in]
			s.Entries = append(s.Entries, Entry{term, strings.TrimSpace(about)})
		case in >= 0 && indent > 2 && len(t.Sections[in].Entries) > 0:
			e := &t.Sections[in].Entries[len(t.Sections[in].Entries)-1]
			e.Text = strings.TrimSpace(e.Text + " " + text)
		default:
			if indent == 0 && blank {
				in = -1
			}
			appendLine(blocks(), strings.TrimPrefix(line, "  "), indent > 0, blank)
		}
		blank = text == ""
	}
	return t
}

// appendLine continues the last block, or begins one.
func appendLine(blocks *[]Block, line string, typed, fresh bool) {
	n := len(*blocks)
	if fresh || n == 0 || (*blocks)[n-1].Typed != typed {
		*blocks = append(*blocks, Block{line, typed})
		return
	}
	between := " "
	if typed {
		between = "\n"
	}
	(*blocks)[n-1].Text += between + line
}
