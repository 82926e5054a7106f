// SPDX-License-Identifier: Apache-2.0

// Updater-bundle makes bundles and looks into them: see updater-bundle help.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
)

const exitHelp = `Exit status: 0 done; 1 something went wrong; 2 wrong usage; 3 the bundle is
malformed or damaged, or not signed by enough keys of the keyring. Unless it is
0, no output file was written.
`

const usage = `updater-bundle makes the signed file of a release, and checks and tries such files.

Usage: updater-bundle COMMAND [OPTIONS] ...

Commands:
  create   make a bundle from raw images
  info     tell what is in a bundle
  verify   check a bundle's signatures and every byte of it
  apply    make an image from a bundle, as a device does
  resign   sign a bundle anew, or add a signature
  serve    serve a directory over HTTP, for trying things out

"updater-bundle COMMAND -h" tells the options of a command and gives an example.
Keys are made by updater-sign.

An encrypted private key gets its passphrase from --passphrase-file (first
line), else from the variable UPDATERD_KEY_PASSPHRASE, else from the terminal.

` + exitHelp

// The exit statuses, as the usage text tells them.
const (
	exitDone = iota
	exitFailed
	exitUsage
	exitUntrusted
)

// errUsage stands for a message that was already printed.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the program at once.
	context.AfterFunc(ctx, stop)
	c := &command{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.LookupEnv}
	status := c.run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}

// command is what a command may touch.
type command struct {
	stdin          *os.File
	stdout, stderr io.Writer
	getenv         func(string) (string, bool)
}

func (c *command) run(ctx context.Context, args []string) int {
	verbs := map[string]func(context.Context, []string) error{
		"create": c.create, "info": c.info, "verify": c.verify,
		"apply": c.apply, "resign": c.resign, "serve": c.serve,
	}
	if len(args) == 0 {
		fmt.Fprint(c.stderr, usage)
		return exitUsage
	}
	verb, known := verbs[args[0]]
	switch {
	case args[0] == "help" || args[0] == "-h" || args[0] == "--help":
		fmt.Fprint(c.stdout, usage)
		return exitDone
	case !known:
		fmt.Fprintf(c.stderr, "updater-bundle: unknown command %q\nhint: run \"updater-bundle help\"\n", args[0])
		return exitUsage
	}
	err := verb(ctx, args[1:])
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return exitDone
	case errors.Is(err, errUsage):
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(c.stderr, "updater-bundle: interrupted, nothing was written")
		return exitFailed
	}
	fmt.Fprintf(c.stderr, "updater-bundle: %v\n", err)
	if h := hint(err); h != "" {
		fmt.Fprintf(c.stderr, "hint: %s\n", h)
	}
	if damaged(err) {
		return exitUntrusted
	}
	return exitFailed
}

// notABundle are the errors that tell a bad bundle from a bad day.
var notABundle = []error{
	sign.ErrUntrusted, sign.ErrMalformed,
	bundle.ErrMalformed, bundle.ErrTruncated, bundle.ErrTrailing, bundle.ErrEncoded, bundle.ErrContent,
}

func damaged(err error) bool {
	for _, e := range notABundle {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// hint is the next step, if there is one.
func hint(err error) string {
	switch {
	case errors.Is(err, sign.ErrUntrusted):
		return "check that the keyring holds the public key of who made this bundle (updater-bundle info shows the bundle unverified)"
	case errors.Is(err, bundle.ErrTruncated), errors.Is(err, bundle.ErrEncoded):
		return "the file was damaged on its way; copy or download it again"
	case errors.Is(err, bundle.ErrTrailing):
		return "something was appended to the file; get it again from who made it"
	}
	return ""
}

// flags starts the flag set of a command; about is its help text.
func (c *command) flags(name, about string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {
		fmt.Fprint(f.Output(), about, "\nOptions:\n")
		f.PrintDefaults()
		fmt.Fprint(f.Output(), "\n", exitHelp)
	}
	return f
}

// parse reads options and operands in any order, and insists on want operands.
func (c *command) parse(f *flag.FlagSet, args []string, want int) ([]string, error) {
	var operands []string
	for {
		err := f.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(c.stdout)
			f.Usage()
			return nil, err
		}
		if err != nil {
			return nil, c.misuse(f, "%v", err)
		}
		if f.NArg() == 0 {
			break
		}
		operands = append(operands, f.Arg(0))
		args = f.Args()[1:]
	}
	if len(operands) != want {
		return nil, c.misuse(f, "%d operands given, want %d", len(operands), want)
	}
	return operands, nil
}

// misuse tells what is wrong with the command line and where help is.
func (c *command) misuse(f *flag.FlagSet, format string, args ...any) error {
	fmt.Fprintf(c.stderr, "updater-bundle %s: %s\nhint: run \"updater-bundle %s -h\"\n", f.Name(), fmt.Sprintf(format, args...), f.Name())
	return errUsage
}

// list is an option that may be given several times.
type list []string

func (l *list) String() string     { return fmt.Sprint([]string(*l)) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }
