// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/updaterd/updaterd/updaterd/client"
)

// Run does what args, without the program's name, ask for, and returns the
// exit code. The daemon is looked for on the system bus, which the variable
// DBUS_SYSTEM_BUS_ADDRESS may name. version is what --version prints.
func Run(version string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, version, args, stdout, stderr)
}

func run(ctx context.Context, version string, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, overview())
		return exitUsage
	}
	switch args[0] {
	case "help", "--help", "-help", "-h":
		return help(args[1:], stdout, stderr)
	case "--version":
		fmt.Fprintln(stdout, "updaterctl", version)
		return exitOK
	}
	cmd := find(args[0])
	if cmd == nil {
		return report(stderr, "", usagef("there is no command %q", args[0]))
	}
	c, err := cmd.parse(args[1:])
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, cmd.help())
		return exitOK
	}
	if err != nil {
		return report(stderr, cmd.name, err)
	}
	c.out, c.err, c.start = stdout, stderr, time.Now()
	c.terminal = func() (int, bool) { return terminalWidth(stdout) }
	return report(stderr, cmd.name, c.do(ctx))
}

// do connects, because every command asks the daemon, and runs the command.
func (c *call) do(ctx context.Context) error {
	if c.command.files && len(c.args) > 0 {
		ref, err := reference(c.args[0])
		if err != nil {
			return err
		}
		c.args[0] = ref
	}
	daemon, err := client.Connect(ctx, client.Options{Interactive: true})
	if err != nil {
		return err
	}
	defer daemon.Close()
	c.client = daemon
	return c.command.run(ctx, c)
}

func find(name string) *command {
	for _, c := range commands() {
		if c.name == name {
			return c
		}
	}
	return nil
}

func help(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stdout, overview())
		return exitOK
	}
	cmd := find(args[0])
	if cmd == nil {
		return report(stderr, "", usagef("there is no command %q", args[0]))
	}
	fmt.Fprint(stdout, cmd.help())
	return exitOK
}

// report shows an error of a command, or of none, and the step that may help,
// and gives its exit code.
func report(stderr io.Writer, command string, err error) int {
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	fmt.Fprintf(stderr, "updaterctl: %s\n", printable(err.Error()))
	if hint := hintFor(command, err); hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", hint)
	}
	return code
}

// terminalWidth is how many columns w has, if it is a terminal.
func terminalWidth(w io.Writer) (int, bool) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		width = 80
	}
	return width, true
}
