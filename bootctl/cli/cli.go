// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
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

var (
	errUsage  = errors.New("wrong use")
	errNotSet = errors.New("not set")
)

// A command is one verb.
type command struct {
	name, args, about string
	run               func(*app, []string) error
}

var commands = []command{
	statusCommand, getCommand, setCommand, markGoodCommand, markBadCommand, setPrimaryCommand,
}

// app is one run of the program.
type app struct {
	options uboot.Options
	cmdline string // the kernel's command line
	stdout  io.Writer
	stderr  io.Writer
}

// Run executes updater-bootctl with args, the program's name not included, and
// returns its exit code.
func Run(args []string, stdout, stderr io.Writer) int {
	a := &app{cmdline: "/proc/cmdline", stdout: stdout, stderr: stderr}
	return a.exit(a.run(args))
}

func (a *app) run(args []string) error {
	flags := a.flags("updater-bootctl")
	flags.StringVar(&a.options.Config, "config", uboot.DefaultConfig, "")
	flags.StringVar(&a.options.LockFile, "lock", uboot.DefaultLockFile, "")
	if err := parse(flags, args); errors.Is(err, flag.ErrHelp) {
		a.usage()
		return nil
	} else if err != nil {
		return err
	}
	rest := flags.Args()
	if len(rest) == 0 {
		return fmt.Errorf("%w: which command?", errUsage)
	}
	for _, c := range commands {
		if c.name != rest[0] {
			continue
		}
		err := c.run(a, rest[1:])
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(a.stdout, "usage: updater-bootctl %s %s\n%s\n", c.name, c.args, c.about)
			return nil
		}
		return err
	}
	if rest[0] == "help" {
		a.usage()
		return nil
	}
	return fmt.Errorf("%w: there is no command %q", errUsage, rest[0])
}

// flags is a set of flags that says nothing by itself.
func (a *app) flags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags
}

func parse(flags *flag.FlagSet, args []string) error {
	err := flags.Parse(args)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		return fmt.Errorf("%w: %v", errUsage, err)
	}
	return err
}

// noFlags takes the arguments of a command that has only arguments. A value may
// begin with a hyphen, a first argument only after "--".
func (a *app) noFlags(name string, args []string) ([]string, error) {
	flags := a.flags(name)
	err := parse(flags, args)
	return flags.Args(), err
}

func (a *app) usage() {
	fmt.Fprint(a.stdout, `usage: updater-bootctl [--config FILE] [--lock FILE] COMMAND [ARGUMENTS]

Shows and changes what the bootloader does, in U-Boot's environment. Works
without the daemon. Commands that change something need root.

commands:
`)
	for _, c := range commands {
		fmt.Fprintf(a.stdout, "  %s\n        %s\n", strings.TrimSpace(c.name+" "+c.args), strings.ReplaceAll(c.about, "\n", "\n        "))
	}
	fmt.Fprintf(a.stdout, `
flags:
  --config FILE  where the environment is (default %s)
  --lock FILE    the lock shared with fw_setenv (default %s)

exit codes:
`, uboot.DefaultConfig, uboot.DefaultLockFile)
	for _, e := range exitCodes {
		fmt.Fprintf(a.stdout, "  %d  %s\n", e.code, e.meaning)
	}
	fmt.Fprint(a.stdout, "\nexample: updater-bootctl status --json\n")
}

// open finds the environment.
func (a *app) open() (*uboot.Control, error) { return uboot.Open(a.options) }

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
	return "", fmt.Errorf("%w: %q is not a slot, the slots are a and b", errUsage, arg)
}

// exit prints err with a hint, if there is one, and chooses the exit code.
func (a *app) exit(err error) int {
	if err == nil {
		return exitOK
	}
	code, hint := exitFailure, ""
	switch {
	case errors.Is(err, errUsage):
		code, hint = exitUsage, `run "updater-bootctl --help" for the commands`
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
