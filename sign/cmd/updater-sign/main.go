// SPDX-License-Identifier: Apache-2.0

// Updater-sign makes keys, and signs files and verifies them: see updater-sign help.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/updaterd/updaterd/sign"
)

const usage = `updater-sign makes keys, signs files into envelopes (DSSE), and verifies envelopes.

Usage: updater-sign COMMAND [OPTIONS] ...

Commands:
  keygen   make a key pair
  sign     sign a file
  verify   check an envelope against a keyring and take out what was signed
  resign   sign the content of an envelope anew, or add a signature to it

"updater-sign COMMAND -h" tells the options of a command. Bundles are signed by
updater-bundle, with keys made here.

An encrypted private key gets its passphrase from --passphrase-file (first
line), else from the variable UPDATERD_KEY_PASSPHRASE, else from the terminal.

Exit status: 0 done; 1 something went wrong, nothing was written; 2 wrong usage;
3 the envelope is malformed or not signed by enough keys of the keyring.
`

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
	c := &command{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.LookupEnv}
	os.Exit(c.run(os.Args[1:]))
}

// command is what a command may touch.
type command struct {
	stdin          *os.File
	stdout, stderr io.Writer
	getenv         func(string) (string, bool)
}

func (c *command) run(args []string) int {
	verbs := map[string]func([]string) error{
		"keygen": c.keygen, "sign": c.sign, "verify": c.verify, "resign": c.resign,
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
		fmt.Fprintf(c.stderr, "updater-sign: unknown command %q\nhint: run \"updater-sign help\"\n", args[0])
		return exitUsage
	}
	err := verb(args[1:])
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return exitDone
	case errors.Is(err, errUsage):
		return exitUsage
	}
	fmt.Fprintf(c.stderr, "updater-sign: %v\n", err)
	if errors.Is(err, sign.ErrUntrusted) || errors.Is(err, sign.ErrMalformed) {
		return exitUntrusted
	}
	return exitFailed
}

// flags starts the flag set of a command; about is its help text.
func (c *command) flags(name, about string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {
		fmt.Fprint(f.Output(), about, "\nOptions:\n")
		f.PrintDefaults()
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
			return nil, c.misuse(f, err.Error())
		}
		if f.NArg() == 0 {
			break
		}
		operands = append(operands, f.Arg(0))
		args = f.Args()[1:]
	}
	if len(operands) != want {
		return nil, c.misuse(f, fmt.Sprintf("%d operands given, want %d", len(operands), want))
	}
	return operands, nil
}

// misuse tells what is wrong with the command line and where help is.
func (c *command) misuse(f *flag.FlagSet, what string) error {
	fmt.Fprintf(c.stderr, "updater-sign %s: %s\nhint: run \"updater-sign %s -h\"\n", f.Name(), what, f.Name())
	return errUsage
}

// list is an option that may be given several times.
type list []string

func (l *list) String() string     { return fmt.Sprint([]string(*l)) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }
