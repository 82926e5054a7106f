// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"fmt"
	"strings"
)

const intro = "updaterctl asks updaterd, the A/B updater of this device, over D-Bus."

// overview is what "updaterctl help" prints.
func overview() string {
	var b strings.Builder
	b.WriteString(intro + "\n\nUsage: updaterctl COMMAND [OPTION]... [ARGUMENT]\n       updaterctl --version\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-22s %s\n", strings.TrimSpace(c.name+" "+c.args), c.summary)
	}
	b.WriteString("\n\"updaterctl help COMMAND\" tells more about one of them.\n")
	return b.String()
}

// help is what "updaterctl help COMMAND" prints.
func (c *command) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "updaterctl %s: %s\n\nUsage: %s\n", c.name, c.summary, c.usage())
	for _, p := range c.description {
		b.WriteString("\n" + wrap(p, "", 80))
	}
	b.WriteString("\n" + wrap("Who may: "+c.root, "", 80))
	if options := c.allOptions(); len(options) > 0 {
		b.WriteString("\nOptions:\n")
		for _, o := range options {
			fmt.Fprintf(&b, "  %s\n%s", o.form(), wrap(o.usage, "        ", 80))
		}
	}
	b.WriteString("\nExit codes:\n")
	for _, e := range c.exitList() {
		fmt.Fprintf(&b, "  %3d  %s\n", e.code, e.meaning)
	}
	b.WriteString("\nExamples:\n")
	for _, e := range c.examples {
		fmt.Fprintf(&b, "  %s\n%s", e.line, wrap(e.does, "        ", 80))
	}
	return b.String()
}

// exitList is the part of the table of exit codes that the command can return.
func (c *command) exitList() []exit {
	var list []exit
	for _, e := range exits() {
		for _, code := range c.allExits() {
			if code == e.code {
				list = append(list, e)
			}
		}
	}
	return list
}
