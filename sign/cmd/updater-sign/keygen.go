// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutKeygen = `Usage: updater-sign keygen [--algorithm ALGORITHM] [--encrypt] [--passphrase-file FILE] -o NAME

Makes a key pair: NAME.key, the private key, readable by its owner only, and
NAME.pub, which goes into the keyring of devices. Existing files are never overwritten.

  updater-sign keygen --encrypt -o release
`

func (c *command) keygen(ctx context.Context, args []string) (err error) {
	f := c.Flags("keygen", aboutKeygen)
	name := f.String("o", "", "write `NAME`.key and NAME.pub")
	algorithm := f.String("algorithm", sign.ECDSAP256, "`ALGORITHM`: "+sign.ECDSAP256+" or "+sign.Ed25519)
	encrypt := f.Bool("encrypt", false, "encrypt the private key; implied by --passphrase-file and UPDATERD_KEY_PASSPHRASE")
	passFile := f.String("passphrase-file", "", "take the passphrase from the first line of `FILE`")
	if _, err := c.Parse(f, args); err != nil {
		return err
	}
	if *name == "" {
		return cli.Misuse("-o NAME is missing")
	}
	if *algorithm != sign.ECDSAP256 && *algorithm != sign.Ed25519 {
		return cli.Misuse("--algorithm %q: use %s or %s", *algorithm, sign.ECDSAP256, sign.Ed25519)
	}
	private, public := *name+".key", *name+".pub"
	for _, path := range []string{private, public} {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("make key: %s is already there; choose another name", path)
		}
	}
	var passphrase []byte
	if _, given := c.Getenv(cli.PassphraseVariable); *encrypt || *passFile != "" || given {
		if passphrase, err = c.NewPassphrase(ctx, *passFile); err != nil {
			return fmt.Errorf("make key: %w", err)
		}
	}
	privPEM, pubPEM, err := sign.GenerateKey(*algorithm, passphrase)
	if err != nil {
		return err
	}
	if err := cli.WriteNew(private, privPEM, 0o600); err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	if err := cli.WriteNew(public, pubPEM, 0o644); err != nil {
		os.Remove(private)
		return fmt.Errorf("make key: %w", err)
	}
	pub, err := sign.ParsePublicKey(pubPEM)
	if err != nil {
		return err
	}
	id, err := sign.KeyID(pub)
	if err != nil {
		return err
	}
	how := "not encrypted"
	if passphrase != nil {
		how = "encrypted"
	}
	fmt.Fprintf(c.Stdout, "private key %s (%s, %s)\npublic key %s\nkey id %s\n", private, *algorithm, how, public, id)
	return nil
}
