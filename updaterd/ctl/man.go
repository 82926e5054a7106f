// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"fmt"
	"strings"
)

// manual is the manual page updaterctl(1), in the macros of man(7). It has no
// date, so that it changes only when the commands do.
func manual() string {
	var b strings.Builder
	b.WriteString(`.\" SPDX-License-Identifier: Apache-2.0` + "\n" +
		`.\" Made from the commands' own descriptions; see updaterd/ctl.` + "\n" +
		".TH UPDATERCTL 1 \"\" updaterd \"User Commands\"\n" +
		".SH NAME\nupdaterctl \\- control the A/B updater of this device\n" +
		".SH SYNOPSIS\n.B updaterctl\n.I COMMAND\n[\\fIOPTION\\fR]... [\\fIARGUMENT\\fR]\n.br\n.B updaterctl \\-\\-version\n" +
		".SH DESCRIPTION\n" + roff(intro) + "\n.PP\n" +
		roff("A job goes on in the daemon whether or not anybody watches it. Flags may stand before and after the other arguments.") +
		"\n.SH COMMANDS\n")
	for _, c := range commands() {
		c.manual(&b)
	}
	b.WriteString(".SH JSON OUTPUT\n" + roff("With --json a command prints one JSON document, install and watch one on each line. Names are only ever added; sizes are bytes, times are RFC 3339 in UTC.") + "\n")
	for _, s := range schemas() {
		fmt.Fprintf(&b, ".SS %s\n", roff(s.name+": "+s.about))
		for _, f := range s.fields {
			fmt.Fprintf(&b, ".TP\n.BR %s \" (%s)\"\n%s\n", roff(f.name), roff(f.kind), roff(f.about))
		}
	}
	b.WriteString(".SH EXIT STATUS\n")
	for _, e := range exits() {
		fmt.Fprintf(&b, ".TP\n.B %d\n%s\n", e.code, roff(e.meaning))
	}
	b.WriteString(".SH ENVIRONMENT\n.TP\n.B DBUS_SYSTEM_BUS_ADDRESS\n" +
		roff("where the system bus is, if it is not where it always is") + "\n" +
		".SH SEE ALSO\n.BR busctl (1),\n.BR polkit (8)\n")
	return b.String()
}

func (c *command) manual(b *strings.Builder) {
	fmt.Fprintf(b, ".SS %s\n", roff(strings.TrimPrefix(c.usage(), "updaterctl ")))
	b.WriteString(roff(upper(c.summary)+".") + "\n")
	for _, p := range c.description {
		b.WriteString(".PP\n" + roff(p) + "\n")
	}
	b.WriteString(".PP\n" + roff("Who may: "+c.root) + "\n")
	for _, o := range c.allOptions() {
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(o.form()), roff(o.usage))
	}
	for _, e := range c.examples {
		fmt.Fprintf(b, ".PP\n%s\n.PP\n.RS\n.nf\n%s\n.fi\n.RE\n", roff("Example: "+e.does), roff(e.line))
	}
	codes := make([]string, 0, 8)
	for _, code := range c.allExits() {
		codes = append(codes, fmt.Sprint(code))
	}
	b.WriteString(".PP\n" + roff("Exit status: "+strings.Join(codes, ", ")+".") + "\n")
}

// roff escapes text so that it stands as it is.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

// upper begins a sentence.
func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
