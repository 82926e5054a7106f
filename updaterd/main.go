// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/updaterd/updaterd/bootctl/cli"
	"github.com/updaterd/updaterd/updaterd/ctl"
	"github.com/updaterd/updaterd/updaterd/internal/config"
)

// version is set by the Makefile.
var version = "unknown"

const usage = `usage: updaterd [--config FILE]
       updaterd --print-config
       updaterd --version

The A/B updater's daemon. It is started by systemd and driven over D-Bus, for
instance with updaterctl.

  --config FILE   the configuration (default /etc/updaterd/updaterd.toml)
  --check         read the configuration, say what is wrong with it, and end
  --print-config  print a configuration with every key, its default and its meaning
  --version       print the version

Exit status: 0 when it was told to end, 1 on an error, 2 on wrong arguments.
`

func main() {
	switch filepath.Base(os.Args[0]) {
	case "updaterctl":
		os.Exit(ctl.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	case "updater-bootctl":
		os.Exit(cli.Run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("updaterd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	path := flags.String("config", "/etc/updaterd/updaterd.toml", "")
	check := flags.Bool("check", false, "")
	printConfig := flags.Bool("print-config", false, "")
	printVersion := flags.Bool("version", false, "")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "updaterd: %q is not understood; run updaterd --help\n", flags.Arg(0))
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
		return 1
	}
	if *check {
		return 0
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
	if err := serve(ctx, c, log); err != nil {
		log.Error(err.Error())
		return 1
	}
	return 0
}
