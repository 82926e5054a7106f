// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutResign = `Usage: updater-bundle resign --keyring DIR --key KEY [--key KEY]... [--add] [--review | --digest DIGEST] -o OUT FILE

Signs a bundle with other keys. Manifest and payload stay byte for byte as they
are, and so does the digest of the release. The signatures that are there are
dropped, or kept with --add. Your signature vouches for the release, so the
bundle is verified against a keyring first. OUT may be FILE itself.

  updater-bundle resign --keyring ci-keys/ --key release.key -o demo-1.2.0.upb demo-1.2.0-ci.upb
`

func (c *command) resign(ctx context.Context, args []string) error {
	f := c.Flags("resign", aboutResign)
	out := f.String("o", "", "write the bundle to `OUT`")
	add := f.Bool("add", false, "keep the signatures that are there")
	keys, trust, look := cli.KeyOptions(f), cli.TrustOptions(f), cli.ReviewOptions(f)
	operands, err := c.Parse(f, args, "FILE")
	if err != nil {
		return err
	}
	if trust.Dir == "" || len(keys.Refs) == 0 || *out == "" {
		return cli.Misuse("--keyring, --key and -o are needed")
	}
	if err := cli.Apart(*out, keys.Refs...); err != nil {
		return err
	}
	file, err := open(trust, operands[0])
	if err != nil {
		return err
	}
	defer file.Close()
	about, err := describeFile(file)
	if err != nil {
		return err
	}
	if err := look.Confirm(ctx, c.Program, about.Digest, about.show); err != nil {
		return err
	}
	signers, err := keys.Load(ctx, c.Program)
	if err != nil {
		return err
	}
	if err := file.Resign(*out, *add, signers...); err != nil {
		return err
	}
	c.signed(*out, signers)
	return nil
}

func (c *command) signed(out string, signers []sign.Signer) {
	for _, s := range signers {
		fmt.Fprintf(c.Stdout, "%s: signed with key %s\n", out, s.KeyID())
	}
}
