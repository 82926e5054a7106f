// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
)

const aboutResign = `Usage: updater-bundle resign --keyring DIR --key KEY [--key KEY]... [--add] -o OUT FILE

Signs a bundle with other keys. Manifest and payload stay byte for byte as they
are, and so does the digest of the release. The signatures that are there are
dropped, or kept with --add. Your signature vouches for the release, so the
bundle is verified against a keyring first. OUT may be FILE itself.

  updater-bundle resign --keyring ci-keys/ --key release.key -o demo-1.2.0.upb demo-1.2.0-ci.upb
`

func (c *command) resign(ctx context.Context, args []string) error {
	f := c.flags("resign", aboutResign)
	out := f.String("o", "", "write the bundle to `OUT`")
	add := f.Bool("add", false, "keep the signatures that are there")
	keys, trust := c.keyOptions(f), c.trustOptions(f)
	operands, err := c.parse(f, args, 1)
	if err != nil {
		return err
	}
	if trust.dir == "" || len(keys.refs) == 0 || *out == "" {
		return c.misuse(f, "--keyring, --key and -o are needed")
	}
	file, err := trust.open(operands[0])
	if err != nil {
		return err
	}
	defer file.Close()
	signers, err := keys.load(ctx, c)
	if err != nil {
		return err
	}
	if err := file.Resign(*out, *add, signers...); err != nil {
		return err
	}
	for _, s := range signers {
		fmt.Fprintf(c.stdout, "%s: signed with key %s\n", *out, s.KeyID())
	}
	return nil
}
