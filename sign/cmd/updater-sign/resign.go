// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutResign = `Usage: updater-sign resign --type TYPE --key KEY [--key KEY]... (--keyring DIR | --unverified) [--add] [--review | --digest DIGEST] -o OUT ENVELOPE

Signs the content of an envelope with other keys; the content stays byte for
byte as it is. The signatures that are there are dropped, or kept with --add.

Your signature vouches for the content, so the envelope is verified against a
keyring first. --unverified signs whatever is in it: only for content that you
have checked by other means, such as --review, which shows it and asks, or
--digest, which signs nothing else.

  updater-sign resign --type application/vnd.example+json --keyring old-keys/ --key new.key -o new.dsse old.dsse
`

func (c *command) resign(ctx context.Context, args []string) error {
	f := c.Flags("resign", aboutResign)
	payloadType := f.String("type", "", "payload `TYPE` that is expected")
	out := f.String("o", "", "write the new envelope to `OUT` (- for standard output); it may be ENVELOPE itself")
	add := f.Bool("add", false, "keep the signatures that are there")
	unverified := f.Bool("unverified", false, "sign without verifying first")
	keys, trust, look := cli.KeyOptions(f), cli.TrustOptions(f), cli.ReviewOptions(f)
	operands, err := c.Parse(f, args, "ENVELOPE")
	if err != nil {
		return err
	}
	if *payloadType == "" || *out == "" || len(keys.Refs) == 0 {
		return cli.Misuse("--type, --key and -o are needed")
	}
	if err := cli.Apart(*out, keys.Refs...); err != nil {
		return err
	}
	if (trust.Dir != "") == *unverified {
		return cli.Misuse("one of --keyring and --unverified is needed")
	}
	envelope, err := cli.ReadFile(operands[0], sign.MaxEnvelope)
	if err != nil {
		return fmt.Errorf("resign: %w", err)
	}
	if !*unverified {
		if _, err := verify(trust, envelope, *payloadType, time.Time{}); err != nil {
			return err
		}
	}
	payload, _, err := sign.Unverified(envelope, *payloadType)
	if err != nil {
		return err
	}
	if err := look.Confirm(ctx, c.Program, cli.Digest(payload), review(*payloadType, payload)); err != nil {
		return err
	}
	signers, err := keys.Load(ctx, c.Program)
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
	return c.WriteFile(*out, envelope)
}
