// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/updaterd/updaterd/sign"
)

const aboutResign = `Usage: updater-sign resign --type TYPE --key KEY [--key KEY]... (--keyring DIR | --unverified) [--add] -o OUT ENVELOPE

Signs the content of an envelope with other keys; the content stays byte for
byte as it is. The signatures that are there are dropped, or kept with --add.

Your signature vouches for the content, so the envelope is verified against a
keyring first. --unverified signs whatever is in it: only for content that you
have checked by other means.

  updater-sign resign --type application/vnd.example+json --keyring old-keys/ --key new.key -o new.dsse old.dsse
`

func (c *command) resign(args []string) error {
	f := c.flags("resign", aboutResign)
	payloadType := f.String("type", "", "payload `TYPE` that is expected")
	out := f.String("o", "", "write the new envelope to `OUT` (- for standard output); it may be ENVELOPE itself")
	add := f.Bool("add", false, "keep the signatures that are there")
	unverified := f.Bool("unverified", false, "sign without verifying first")
	keys, trust := c.keyOptions(f), c.trustOptions(f)
	operands, err := c.parse(f, args, 1)
	if err != nil {
		return err
	}
	if *payloadType == "" || *out == "" || len(keys.refs) == 0 {
		return c.misuse(f, "--type, --key and -o are needed")
	}
	if (trust.dir != "") == *unverified {
		return c.misuse(f, "one of --keyring and --unverified is needed")
	}
	envelope, err := readFile(operands[0], sign.MaxEnvelope)
	if err != nil {
		return fmt.Errorf("resign: %w", err)
	}
	if !*unverified {
		if _, err := trust.verify(envelope, *payloadType); err != nil {
			return err
		}
	}
	signers, err := keys.load(c)
	if err != nil {
		return err
	}
	if *add {
		for _, s := range signers {
			if envelope, err = sign.Add(envelope, *payloadType, s); err != nil {
				return err
			}
		}
	} else if envelope, err = sign.Replace(envelope, *payloadType, signers...); err != nil {
		return err
	}
	return c.write(*out, envelope)
}
