// SPDX-License-Identifier: Apache-2.0

// Updater-bundle makes bundles and looks into them: see updater-bundle --help.
package main

//go:generate go test -run TestGenerated -update .

import (
	"errors"
	"runtime/debug"
	"slices"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/channel"
	"github.com/updaterd/updaterd/bundle/permit"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

// version is set by the Makefile.
var version = "unknown"

const usage = `updater-bundle makes the signed file of a release, and checks and tries such files.

Usage: updater-bundle COMMAND [OPTION]... [ARGUMENT]
       updater-bundle --version

Commands:
  create       make a bundle from raw images
  diff         tell what a delta between two images will cost, and why
  info         tell what is in a bundle
  verify       check a bundle's signatures and every byte of it
  apply        make an image from a bundle, as a device does
  extract      write a document of a bundle to a file
  sign         sign a bundle that was made without a signature
  manifest     write what there is to sign to a file, for another machine
  attach       put signatures that were made elsewhere into a bundle
  resign       sign a bundle anew, or add a signature
  log-request  write what to send to a transparency log
  log-attach   put what the log answered into a bundle
  channel      state which releases a channel offers, and until when that holds
  permit       let certain devices go back behind their version floor
  keygen       make what a bundle is encrypted for
  serve        serve a directory over HTTP, for trying things out

"updater-bundle help COMMAND" tells more about one of them and gives an example.
Keys that sign are made by updater-sign.

` + cli.PassphraseHelp

const exitCodes = `Exit codes:
  0  done
  1  failed: the message says why
  2  the command line is wrong
  3  the bundle is malformed or damaged, or not signed by enough keys of the keyring
Unless it is 0, no output file was written.
`

// command is one run of the program.
type command struct{ *cli.Program }

func newCommand() *command {
	return &command{&cli.Program{
		Name: "updater-bundle", Version: version, Overview: usage, ExitCodes: exitCodes,
		Untrusted: damaged, Hint: hint,
	}}
}

func (c *command) commands() map[string]cli.Command {
	return map[string]cli.Command{
		"create": c.create, "diff": c.diff, "info": c.info, "verify": c.verify,
		"apply": c.apply, "extract": c.extract, "sign": c.sign, "manifest": c.manifest,
		"attach": c.attach, "resign": c.resign, "log-request": c.logRequest, "log-attach": c.logAttach,
		"channel": c.channel, "permit": c.permit, "keygen": c.keygen, "serve": c.serve,
	}
}

func main() {
	// Most of the memory is tables without a pointer in them, which cost the
	// collector nothing to look at but would double before it did.
	debug.SetGCPercent(20)
	c := newCommand()
	c.Main(c.commands())
}

// notABundle are the errors that tell a bad bundle from a bad day.
var notABundle = []error{
	sign.ErrUntrusted, sign.ErrMalformed,
	bundle.ErrMalformed, bundle.ErrTruncated, bundle.ErrTrailing, bundle.ErrEncoded, bundle.ErrContent, channel.ErrMalformed, permit.ErrMalformed,
}

func damaged(err error) bool {
	return slices.ContainsFunc(notABundle, func(e error) bool { return errors.Is(err, e) })
}

// hint is the next step, if there is one.
func hint(err error) string {
	switch {
	case errors.Is(err, sign.ErrUnsigned):
		return "sign it first (updater-bundle help sign)"
	case errors.Is(err, sign.ErrUntrusted):
		return "check that the keyring holds the public key of who made this bundle (updater-bundle info shows the bundle unverified)"
	case errors.Is(err, bundle.ErrLocked):
		return "give the --identity of one of its recipients (updater-bundle info lists them)"
	case errors.Is(err, bundle.ErrTruncated), errors.Is(err, bundle.ErrEncoded):
		return "the file was damaged on its way; copy or download it again"
	case errors.Is(err, bundle.ErrTrailing):
		return "something was appended to the file; get it again from who made it"
	}
	return ""
}

// open opens a bundle that enough keys have signed.
func open(trust *cli.Trust, path string) (*bundle.File, error) {
	policy, err := trust.Policy()
	if err != nil {
		return nil, err
	}
	return bundle.Open(path, policy)
}
