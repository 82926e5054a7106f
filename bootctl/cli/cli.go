// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
)

// The exit codes, which the usage lists.
const (
	exitOK = iota
	exitFailure
	exitUsage
	exitDamaged
	exitBadSlot
	exitContract
	exitNotSet
)

var exitCodes = []struct {
	code    int
	meaning string
}{
	{exitOK, "done, or there was nothing to change"},
	{exitFailure, "failed: the message says why"},
	{exitUsage, "the command line is wrong"},
	{exitDamaged, "no copy of the environment is intact; nothing was written"},
	{exitBadSlot, "refused: the slot is marked bad, or no good slot would be left"},
	{exitContract, "the environment does not follow the boot contract"},
	{exitNotSet, "get: a variable is not set"},
}

var errNotSet = errors.New("not set")

// usageError is a command line that makes no sense.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// A command is one verb.
type command struct {
	name, args, about string
	run               func(*app, []string) error
}

var commands = []command{
	statusCommand, getCommand, setCommand, markGoodCommand, markBadCommand, setPrimaryCommand,
	restoreCommand,
}

// app is one run of the program.
type app struct {
	options uboot.Options
	cmdline string // the kernel's command line
	bootID  string // the kernel's id of this start
	stdout  io.Writer
	stderr  io.Writer
}

// Run executes updater-bootctl with args, the program's name not included, and
// returns its exit code. version is what --version prints.
func Run(version string, args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == "--version" {
		fmt.Fprintln(stdout, "updater-bootctl", version)
		return exitOK
	}
	a := &app{cmdline: "/proc/cmdline", bootID: "/proc/sys/kernel/random/boot_id", stdout: stdout, stderr: stderr}
	return a.exit(a.run(args))
}

func (a *app) run(args []string) error {
	flags := a.flags("updater-bootctl")
	flags.StringVar(&a.options.Config, "config", uboot.DefaultConfig, "")
	flags.StringVar(&a.options.LockFile, "lock", "", "")
	flags.Func("scheme", "", a.scheme)
	if err := parse(flags, args); errors.Is(err, flag.ErrHelp) {
		a.usage()
		return nil
	} else if err != nil {
		return err
	}
	rest := flags.Args()
	if len(rest) > 1 && rest[0] == "help" {
		rest = []string{rest[1], "--help"}
	}
	if len(rest) == 0 {
		return usagef("a command is missing")
	}
	for _, c := range commands {
		if c.name != rest[0] {
			continue
		}
		err := c.run(a, rest[1:])
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(a.stdout, "Usage: updater-bootctl %s\n\n%s\n", strings.TrimSpace(c.name+" "+c.args), c.about)
			return nil
		}
		return err
	}
	if rest[0] == "help" {
		a.usage()
		return nil
	}
	return usagef("there is no command %q", rest[0])
}

// flags is a set of flags that says nothing by itself.
func (a *app) flags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags
}

func parse(flags *flag.FlagSet, args []string) error {
	err := flags.Parse(args)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	if name, found := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); found {
		return usagef("there is no option --%s", name)
	}
	if name, found := strings.CutPrefix(err.Error(), "flag needs an argument: -"); found {
		return usagef("--%s needs a value", name)
	}
	return usagef("%v", err)
}

// noFlags takes the arguments of a command that has only arguments. A value may
// begin with a hyphen, a first argument only after "--".
func (a *app) noFlags(name string, args []string) ([]string, error) {
	flags := a.flags(name)
	err := parse(flags, args)
	return flags.Args(), err
}

func (a *app) usage() {
	fmt.Fprint(a.stdout, `Usage: updater-bootctl [--config FILE] [--lock FILE] [--scheme SCHEME] COMMAND [OPTION]... [ARGUMENT]...
       updater-bootctl --version

Shows and changes what the bootloader does, in U-Boot's environment. Works
without the daemon. Commands that change something need root.

Commands:
`)
	for _, c := range commands {
		fmt.Fprintf(a.stdout, "  %s\n        %s\n", strings.TrimSpace(c.name+" "+c.args), strings.ReplaceAll(c.about, "\n", "\n        "))
	}
	fmt.Fprintf(a.stdout, `
Options, which stand before the command:
  --config FILE  where the environment is (default %s)
  --lock FILE    the lock shared with fw_setenv (default: what the configuration
                 names, or %s)
  --scheme SCHEME
                 bootcount, bootorder, or bootorder:A,B with what the slots a and b
                 are called there (default: the one that the environment follows)

Exit codes:
`, uboot.DefaultConfig, uboot.DefaultLockFile)
	for _, e := range exitCodes {
		fmt.Fprintf(a.stdout, "  %d  %s\n", e.code, e.meaning)
	}
	fmt.Fprint(a.stdout, "\nExample: updater-bootctl status --json\n")
}

// scheme reads the value of --scheme.
func (a *app) scheme(value string) error {
	name, names, named := strings.Cut(value, ":")
	s := uboot.Scheme{Name: name}
	if named {
		one, two, _ := strings.Cut(names, ",")
		s.Slots = [2]string{one, two}
	}
	a.options.Scheme = s
	_, err := uboot.NewScheme(nil, s)
	return err
}

// open finds the environment.
func (a *app) open() (*uboot.Control, error) {
	a.options.Scheme.Started = a.booted()
	if id, err := os.ReadFile(a.bootID); err == nil {
		a.options.Scheme.BootID = strings.TrimSpace(string(id))
	}
	return uboot.Open(a.options)
}

// look finds the environment and reads it.
func (a *app) look() (*uboot.Control, bootctl.Status, error) {
	c, err := a.open()
	if err != nil {
		return nil, bootctl.Status{}, err
	}
	st, err := c.Status()
	return c, st, err
}

// change applies one change.
func (a *app) change(change bootctl.Change) error {
	c, err := a.open()
	if err != nil {
		return err
	}
	return c.Apply(change)
}

func slotArg(arg string) (bootctl.Slot, error) {
	if slot := bootctl.Slot(arg); slot.Valid() {
		return slot, nil
	}
	return "", usagef("%q is not a slot, the slots are a and b", arg)
}

// exit prints err with a hint, if there is one, and chooses the exit code.
func (a *app) exit(err error) int {
	if err == nil {
		return exitOK
	}
	code, hint := exitFailure, ""
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		code, hint = exitUsage, `run "updater-bootctl --help"`
	case errors.Is(err, bootctl.ErrDamaged):
		code = exitDamaged
	case errors.Is(err, bootctl.ErrBadSlot):
		code, hint = exitBadSlot, `if you know that the slot holds a whole system, run "updater-bootctl mark-good SLOT" first`
	case errors.Is(err, bootctl.ErrContract):
		code, hint = exitContract, `"updater-bootctl get" shows the whole environment`
	case errors.Is(err, errNotSet):
		code = exitNotSet
	case errors.Is(err, fs.ErrPermission):
		hint = "run it as root"
	case errors.Is(err, fs.ErrNotExist):
		hint = "check the path, or name another configuration with --config"
	}
	fmt.Fprintf(a.stderr, "updater-bootctl: %v\n", err)
	if hint != "" {
		fmt.Fprintf(a.stderr, "hint: %s\n", hint)
	}
	return code
}
