// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// The exit codes.
const (
	ExitDone = iota
	ExitFailed
	ExitUsage
	ExitUntrusted
)

// A Command does what the arguments after its name ask for.
type Command func(ctx context.Context, args []string) error

// A Program is one run of a program that has commands.
type Program struct {
	Name, Version string
	// Overview is the help of the whole program, and ExitCodes ends every help.
	Overview, ExitCodes string
	// Untrusted tells the errors that get the exit code of their own.
	Untrusted func(error) bool
	// Hint is the next step after an error, or "". It may be nil.
	Hint func(error) string

	Stdin          *os.File
	Stdout, Stderr io.Writer
	Getenv         func(string) (string, bool)
}

// Main runs a program with the arguments, files and signals of this process,
// and ends it. A second Ctrl-C ends it at once.
func (p *Program) Main(commands map[string]Command) {
	p.Stdin, p.Stdout, p.Stderr, p.Getenv = os.Stdin, os.Stdout, os.Stderr, os.LookupEnv
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	restore := keepTerminal()
	code := p.Run(ctx, commands, os.Args[1:])
	if ctx.Err() != nil {
		restore()
	}
	stop()
	os.Exit(code)
}

// Run runs the command that args name and returns the exit code.
func (p *Program) Run(ctx context.Context, commands map[string]Command, args []string) int {
	if len(args) == 0 {
		fmt.Fprint(p.Stderr, p.Overview, "\n", p.ExitCodes)
		return ExitUsage
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		if len(args) > 1 && commands[args[1]] != nil {
			args = []string{args[1], "--help"}
			break
		}
		fmt.Fprint(p.Stdout, p.Overview, "\n", p.ExitCodes)
		return ExitDone
	case "--version":
		fmt.Fprintln(p.Stdout, p.Name, p.Version)
		return ExitDone
	}
	command := commands[args[0]]
	if command == nil {
		fmt.Fprintf(p.Stderr, "%s: there is no command %q\nhint: run \"%s --help\"\n", p.Name, args[0], p.Name)
		return ExitUsage
	}
	err := command(ctx, args[1:])
	var usage *usageError
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return ExitDone
	case errors.As(err, &usage):
		fmt.Fprintf(p.Stderr, "%s: %s: %s\nhint: run \"%s %s --help\"\n", p.Name, args[0], usage.text, p.Name, args[0])
		return ExitUsage
	case ctx.Err() != nil:
		fmt.Fprintf(p.Stderr, "%s: interrupted, nothing was written\n", p.Name)
		return ExitFailed
	}
	fmt.Fprintf(p.Stderr, "%s: %v\n", p.Name, err)
	if p.Hint != nil {
		if hint := p.Hint(err); hint != "" {
			fmt.Fprintf(p.Stderr, "hint: %s\n", hint)
		}
	}
	if p.Untrusted(err) {
		return ExitUntrusted
	}
	return ExitFailed
}

// usageError is a command line that makes no sense.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// Misuse is the error for a command line that makes no sense.
func Misuse(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// Flags starts the options of a command; about is its help text.
func (p *Program) Flags(name, about string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() { fmt.Fprint(f.Output(), about, "\nOptions:\n", options(f), "\n", p.ExitCodes) }
	return f
}

// options lists the options for the help text.
func options(f *flag.FlagSet) string {
	var b strings.Builder
	f.VisitAll(func(o *flag.Flag) {
		arg, text := flag.UnquoteUsage(o)
		fmt.Fprintf(&b, "  %s\n        %s", strings.TrimSpace(dashed(o.Name)+" "+arg), strings.TrimPrefix(text, arg+": "))
		switch o.DefValue {
		case "", "0", "false":
		default:
			fmt.Fprintf(&b, " (default %s)", o.DefValue)
		}
		b.WriteString("\n")
	})
	return b.String()
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// Parse reads options and operands in any order, and insists on one operand
// for each of the names.
func (p *Program) Parse(f *flag.FlagSet, args []string, names ...string) ([]string, error) {
	var operands []string
	for {
		err := f.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(p.Stdout)
			f.Usage()
			return nil, err
		}
		if err != nil {
			return nil, Misuse("%s", plain(err.Error()))
		}
		if f.NArg() == 0 {
			break
		}
		operands = append(operands, f.Arg(0))
		args = f.Args()[1:]
	}
	switch n := len(operands); {
	case n < len(names):
		return nil, Misuse("%s is missing", names[n])
	case n > len(names):
		return nil, Misuse("%q is one argument too many", operands[len(names)])
	}
	return operands, nil
}

// plain says in the words of the help what package flag says.
func plain(s string) string {
	if name, found := strings.CutPrefix(s, "flag provided but not defined: -"); found {
		return "there is no option " + dashed(name)
	}
	if name, found := strings.CutPrefix(s, "flag needs an argument: -"); found {
		return dashed(name) + " needs a value"
	}
	if value, rest, found := strings.Cut(s, " for flag -"); found && strings.HasPrefix(value, "invalid value ") {
		name, why, _ := strings.Cut(rest, ": ")
		if why == "parse error" {
			why = "not a number"
		}
		return dashed(name) + " " + strings.TrimPrefix(value, "invalid value ") + ": " + why
	}
	return s
}

// List is an option that may be given several times.
type List []string

func (l *List) String() string     { return strings.Join(*l, " ") }
func (l *List) Set(s string) error { *l = append(*l, s); return nil }

// Apart is an error if out is the same file as one of the inputs, which would
// be lost then.
func Apart(out string, inputs ...string) error {
	will, err := os.Stat(out)
	if err != nil {
		return nil
	}
	for _, in := range inputs {
		if is, err := os.Stat(in); err == nil && will.Mode().IsRegular() && os.SameFile(is, will) {
			return Misuse("%s is an input too; choose another name for the output", in)
		}
	}
	return nil
}
