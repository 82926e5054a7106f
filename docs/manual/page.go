// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"fmt"
	"strings"
)

// Page is the manual page, in the macros of man(7).
func Page(p Program) string {
	b := &page{}
	kind := "User Commands"
	if p.Section == 8 {
		kind = "System Administration"
	}
	b.line(`.\" SPDX-License-Identifier: Apache-2.0`)
	b.line(`.\" Made from what the program says about itself; see docs/manual.`)
	b.line(`.TH %s %d "" updaterd "%s"`, strings.ToUpper(p.Name), p.Section, kind)
	b.line(".SH NAME\n%s \\- %s", roff(p.Name), roff(p.Summary))
	b.line(".SH SYNOPSIS\n.nf")
	for _, u := range p.Usage {
		b.line("%s", roff(u))
	}
	b.line(".fi\n.SH DESCRIPTION")
	b.blocks(p.Blocks)
	for _, s := range p.Sections {
		if s.Title != "Commands" || len(p.Commands) == 0 {
			b.section(".SH", s)
			continue
		}
		b.line(".SH COMMANDS")
		for _, c := range p.Commands {
			b.command(&p, c)
		}
	}
	for i, s := range p.SeeAlso {
		if i == 0 {
			b.line(".SH SEE ALSO")
		}
		name, section, _ := strings.Cut(s, "(")
		end := ","
		if i == len(p.SeeAlso)-1 {
			end = ""
		}
		b.line(".BR %s (%s%s", roff(name), section, end)
	}
	return b.String()
}

type page struct{ strings.Builder }

func (b *page) line(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }

func (b *page) command(p *Program, c Command) {
	b.line(".SS %s", roff(c.Name))
	for _, u := range c.Usage {
		b.line(".B %s\n.PP", roff(u))
	}
	if len(c.Blocks) == 0 || c.Blocks[0].Text != c.Summary {
		b.line("%s\n.PP", roff(sentence(c.Summary)))
	}
	b.blocks(c.Blocks)
	for _, s := range c.Sections {
		if whole := p.section(s.Title); fmt.Sprint(whole) == fmt.Sprint(s) {
			continue // said once, for the whole program
		}
		b.line(".PP\n.I %s:", roff(s.Title))
		b.section("", s)
	}
}

// section prints a section; with the heading "" somebody else has begun it.
func (b *page) section(heading string, s Section) {
	if heading != "" {
		title := s.Title
		if title == "Exit codes" {
			title = "Exit status" // as in all manuals
		}
		b.line("%s %s", heading, strings.ToUpper(roff(title)))
	}
	for _, e := range s.Entries {
		b.line(".TP\n.B %s\n%s", roff(e.Term), roff(e.Text))
	}
	if len(s.Entries) > 0 && len(s.Blocks) > 0 {
		b.line(".PP")
	}
	b.blocks(s.Blocks)
}

func (b *page) blocks(blocks []Block) {
	for i, x := range blocks {
		if i > 0 {
			b.line(".PP")
		}
		if !x.Typed {
			b.line("%s", roff(x.Text))
			continue
		}
		b.line(".RS\n.nf")
		for line := range strings.SplitSeq(x.Text, "\n") {
			b.line("%s", roff(line))
		}
		b.line(".fi\n.RE")
	}
}

// roff escapes text so that it stands as it is.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

// sentence begins with a capital and ends with a period.
func sentence(s string) string {
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}
