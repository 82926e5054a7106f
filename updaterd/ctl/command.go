// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/updaterd/updaterd/updaterd/client"
)

// An option is one flag of a command.
type option struct {
	name   string
	arg    string   // what its value is called; "" for a flag without one
	values []string // what it may be, if that can be listed
	usage  string
}

// An example is a line to type and what it does.
type example struct{ line, does string }

// A command describes itself: help, manual page and completion are made of this.
type command struct {
	name        string
	args        string // as in "URL|FILE"
	min, max    int    // number of arguments
	words       []string
	files       bool // the argument may be a file
	summary     string
	description []string // paragraphs
	root        string   // who may do this
	options     []option
	schema      string // name of the schema of what --json prints; "" if it has none
	exits       []int  // besides 0, 2 and 3
	examples    []example
	run         func(ctx context.Context, c *call) error
}

// commands lists every command in the order of an update.
func commands() []*command {
	return []*command{
		statusCommand(), checkCommand(), inspectCommand(), installCommand(), watchCommand(),
		pauseCommand(), resumeCommand(), cancelCommand(),
		activateCommand(), rebootCommand(), markGoodCommand(), markBadCommand(), historyCommand(),
	}
}

var jsonOption = option{name: "json", usage: "print JSON instead of text"}

// allOptions is what the command takes, --json included.
func (c *command) allOptions() []option {
	if c.schema == "" {
		return c.options
	}
	return append(slices.Clone(c.options), jsonOption)
}

// allExits is every exit code that the command can return, sorted.
func (c *command) allExits() []int {
	all := append([]int{exitOK, exitUsage, exitUnreachable}, c.exits...)
	slices.Sort(all)
	return slices.Compact(all)
}

// usage is the line that says how to call the command.
func (c *command) usage() string {
	const width = 110 // beyond it, the list of options has to do
	var options []string
	for _, o := range c.allOptions() {
		options = append(options, "["+o.form()+"]")
	}
	line := strings.Join(options, " ")
	if len(line)+len(c.name)+len(c.args) > width {
		line = "[OPTION]..."
	}
	return strings.TrimSpace(strings.Join([]string{"updaterctl", c.name, line, c.args}, " "))
}

func (o option) form() string {
	switch {
	case o.values != nil:
		return "--" + o.name + "=" + strings.Join(o.values, "|")
	case o.arg != "":
		return "--" + o.name + "=" + o.arg
	}
	return "--" + o.name
}

// A call is one use of a command.
type call struct {
	command  *command
	args     []string
	flags    map[string]string // those given; "true" for those without a value
	json     bool
	out, err io.Writer
	terminal func() (width int, ok bool) // of out
	start    time.Time
	client   *client.Client
}

func (c *call) has(flag string) bool { return c.flags[flag] == "true" }

// hint tells the next step.
func (c *call) hint(format string, args ...any) {
	fmt.Fprintf(c.err, "hint: "+format+"\n", args...)
}

// usageError is a call that makes no sense.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// parse reads the arguments after the command's name. Flags may stand before,
// between and after the others; "--" ends them.
func (c *command) parse(args []string) (*call, error) {
	set := flag.NewFlagSet(c.name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for _, o := range c.allOptions() {
		if o.arg == "" && o.values == nil {
			set.Bool(o.name, false, o.usage)
		} else {
			set.String(o.name, "", o.usage)
		}
	}
	call := &call{command: c, flags: map[string]string{}}
	for {
		if err := set.Parse(args); err != nil {
			if err == flag.ErrHelp {
				return nil, err
			}
			text := err.Error()
			if name, found := strings.CutPrefix(text, "flag provided but not defined: -"); found {
				text = "there is no option --" + name
			} else if name, found := strings.CutPrefix(text, "flag needs an argument: -"); found {
				text = "--" + name + " needs a value"
			}
			return nil, usagef("%s: %s", c.name, text)
		}
		rest := set.Args()
		if used := args[:len(args)-len(rest)]; len(used) > 0 && used[len(used)-1] == "--" {
			call.args = append(call.args, rest...)
			break
		}
		if len(rest) == 0 {
			break
		}
		call.args = append(call.args, rest[0])
		args = rest[1:]
	}
	set.Visit(func(f *flag.Flag) { call.flags[f.Name] = f.Value.String() })
	call.json = call.has("json")
	return call, c.check(call)
}

func (c *command) check(call *call) error {
	for _, o := range c.options {
		if v, given := call.flags[o.name]; given && o.values != nil && !slices.Contains(o.values, v) {
			return usagef("%s: --%s is %q, want one of %s", c.name, o.name, v, strings.Join(o.values, ", "))
		}
	}
	switch n := len(call.args); {
	case n < c.min:
		return usagef("%s: %s is missing", c.name, c.args)
	case n > c.max:
		return usagef("%s: %q is one argument too many", c.name, call.args[c.max])
	}
	return nil
}
