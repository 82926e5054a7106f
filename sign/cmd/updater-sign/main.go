// SPDX-License-Identifier: Apache-2.0

// Updater-sign makes keys, and signs files and verifies them: see updater-sign --help.
package main

//go:generate go test -run TestGenerated -update .

import (
	"errors"

	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

// version is set by the Makefile.
var version = "unknown"

const usage = `updater-sign makes keys, signs files into envelopes (DSSE), and verifies envelopes.

Usage: updater-sign COMMAND [OPTION]... [ARGUMENT]
       updater-sign --version

Commands:
  keygen       make a key pair
  public       write the public half of a key, wherever the key lives
  sign         sign a file
  verify       check an envelope against a keyring and take out what was signed
  resign       sign the content of an envelope anew, or add a signature to it
  log-request  write what to send to a transparency log
  log-attach   put what the log answered into an envelope

"updater-sign help COMMAND" tells more about one of them and gives an example.
Bundles are signed by updater-bundle, with the same keys.

` + cli.PassphraseHelp

const exitCodes = `Exit codes:
  0  done
  1  failed: the message says why
  2  the command line is wrong
  3  the envelope is malformed, or not signed by enough keys of the keyring
Unless it is 0, no output file was written.
`

// command is one run of the program.
type command struct{ *cli.Program }

func newCommand() *command {
	return &command{&cli.Program{
		Name: "updater-sign", Version: version, Overview: usage, ExitCodes: exitCodes,
		Untrusted: func(err error) bool { return errors.Is(err, sign.ErrUntrusted) || errors.Is(err, sign.ErrMalformed) },
	}}
}

func (c *command) commands() map[string]cli.Command {
	return map[string]cli.Command{
		"keygen": c.keygen, "public": c.public, "sign": c.sign, "verify": c.verify, "resign": c.resign,
		"log-request": c.logRequest, "log-attach": c.logAttach,
	}
}

func main() {
	c := newCommand()
	c.Main(c.commands())
}
