// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/updaterd/updaterd/sign/cli"
)

const aboutPublic = `Usage: updater-sign public --key KEY -o FILE

Writes the public half of a key as PEM, for the keyring of devices, and tells the
key id. It also shows whether the key can be reached, and is of a kind that
devices verify.

  updater-sign public --key hashivault://release -o keys/release.pub
`

func (c *command) public(ctx context.Context, args []string) error {
	f := c.Flags("public", aboutPublic)
	out := f.String("o", "", "write the public key to `FILE` (- for standard output)")
	keys := cli.KeyOptions(f)
	if _, err := c.Parse(f, args); err != nil {
		return err
	}
	if len(keys.Refs) != 1 || *out == "" {
		return cli.Misuse("one --key and -o are needed")
	}
	if err := cli.Apart(*out, keys.Refs...); err != nil {
		return err
	}
	signers, err := keys.Load(ctx, c.Program)
	if err != nil {
		return err
	}
	pub, err := signers[0].PublicKey()
	if err != nil {
		return err
	}
	b, err := cryptoutils.MarshalPublicKeyToPEM(pub)
	if err != nil {
		return err
	}
	if err := c.WriteFile(*out, b); err != nil {
		return fmt.Errorf("write public key: %w", err)
	}
	if *out != "-" {
		fmt.Fprintf(c.Stdout, "public key %s\nkey id %s\n", *out, signers[0].KeyID())
	}
	return nil
}
