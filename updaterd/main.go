// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/updaterd/updaterd/bootctl/cli"
	"github.com/updaterd/updaterd/updaterd/ctl"
	"github.com/updaterd/updaterd/updaterd/internal/config"
	"github.com/updaterd/updaterd/updaterd/internal/install"
	"github.com/updaterd/updaterd/updaterd/internal/machine"
)

// version is set by the Makefile.
var version = "unknown"

const usage = `Usage: updaterd [--config FILE]
       updaterd check-config [--json] [--config FILE]
       updaterd end-trial [--config FILE]
       updaterd --print-config
       updaterd --version

The A/B updater's daemon. It is started by systemd or by an init script, and
driven over D-Bus, for instance with updaterctl.

Commands:
  check-config  check the configuration, and whether this device is as updates need it
  end-trial     end a trial in which the daemon does not run, by a reboot after its deadline

Options:
  --config FILE   the configuration (default /etc/updaterd/updaterd.toml)
  --print-config  print a configuration with every key, its default and its meaning
  --version       print the version

Exit codes:
  0  done, or it was told to end
  1  failed: the message says why
  2  the command line is wrong
  3  check-config found something that fails
`

const checkUsage = `Usage: updaterd check-config [--json] [--config FILE]

Checks the configuration, and that this device is as updates need it: the keys,
the boot environment and its canary, slots and what is mounted, the slot that
runs, watchdog, clock, message bus, data partition, health commands, and what
makes deltas large. Changes nothing. It reads all of the slot that runs, if it is on
record what was installed there. Needs root.

A line that begins with FAIL says what keeps updates from being safe, or small;
one with warn says what is unwise. The line below says how to cure it.

Options:
  --config FILE   the configuration (default /etc/updaterd/updaterd.toml)
  --json          print one JSON object: config, failed, warnings and checks,
                  each with name, level (ok, warn, fail), text and cure

Exit codes:
  0  nothing failed; there may be warnings
  1  the configuration cannot be read
  2  the command line is wrong
  3  something failed

Example: updaterd check-config --json
`

const endUsage = `Usage: updaterd end-trial [--config FILE]

If this system is on trial, waits until that is decided. A minute after the deadline of
the health checks, counted from the start of the kernel, it still is only if no daemon
runs, and then this reboots. That costs a try, and when none is left, the bootloader
starts the other system. Does nothing outside a trial. It is what updaterd-trial.service
runs from early on: a start that comes to emergency mode, or waits for ever for a unit,
never gets to the daemon. Needs root.

Options:
  --config FILE   the configuration (default /etc/updaterd/updaterd.toml)

Exit codes:
  0  this is no trial, or the reboot has begun
  2  the command line is wrong
`

// exitUnfit is the exit code of check-config for a device that does not fit the configuration.
const exitUnfit = 3

func main() {
	switch filepath.Base(os.Args[0]) {
	case "updaterctl":
		os.Exit(ctl.Run(version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	case "updater-bootctl":
		os.Exit(cli.Run(version, os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("updaterd", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	path := flags.String("config", "/etc/updaterd/updaterd.toml", "")
	asJSON := flags.Bool("json", false, "")
	printConfig := flags.Bool("print-config", false, "")
	printVersion := flags.Bool("version", false, "")
	wrong := ""
	command, help := "", usage
	helps := map[string]string{"check-config": checkUsage, "end-trial": endUsage}
	switch {
	case len(args) > 0 && helps[args[0]] != "":
		command, args = args[0], args[1:]
	case len(args) == 2 && args[0] == "help" && helps[args[1]] != "":
		command, args = args[1], []string{"--help"}
	}
	if command != "" {
		help = helps[command]
	}
	look, end := command == "check-config", command == "end-trial"
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, help)
		return 0
	case err != nil:
		wrong = err.Error()
		if name, found := strings.CutPrefix(wrong, "flag provided but not defined: -"); found {
			wrong = "there is no option --" + name
		} else if name, found := strings.CutPrefix(wrong, "flag needs an argument: -"); found {
			wrong = "--" + name + " needs a value"
		}
	case *asJSON && !look:
		wrong = "--json is for check-config"
	case flags.NArg() > 0:
		wrong = fmt.Sprintf("%q is one argument too many", flags.Arg(0))
	}
	if wrong != "" {
		fmt.Fprintf(stderr, "updaterd: %s\nhint: run \"updaterd --help\"\n", wrong)
		return 2
	}
	switch {
	case *printVersion:
		fmt.Fprintln(stdout, "updaterd", version)
		return 0
	case *printConfig:
		_, _ = stdout.Write(config.DefaultFile())
		return 0
	}
	c, err := config.Load(*path)
	if err != nil {
		fmt.Fprintf(stderr, "updaterd: %v\n", err)
		if errors.Is(err, fs.ErrNotExist) {
			fmt.Fprint(stderr, "hint: \"updaterd --print-config\" prints one to begin with\n")
		}
		if look {
			return 1
		}
	} else if look {
		return checkConfig(*path, checksOf(c, "/"), *asJSON, stdout, stderr)
	}
	// Garbage is collected before the daemon, its code included, has grown to the
	// 32 MiB that it may take; GOMEMLIMIT in its environment says otherwise.
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(install.MemoryLimit)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// systemd's journal adds the time itself.
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	switch {
	case err != nil:
		c = config.Salvage(*path)
	case !end:
		if err = serve(ctx, c, log); err == nil {
			return 0
		}
		log.Error(err.Error())
	}
	claimed := machine.Claimed(schemeOf(c))
	if end {
		endTrial(ctx, c, claimed, restartPause, daemonRuns, log)
		return 0
	}
	lastResort(ctx, c, claimed, restartPause, log)
	return 1
}
