// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutSign = `Usage: updater-sign sign --type TYPE --key KEY [--key KEY]... [--chain FILE] [--review | --digest DIGEST] -o ENVELOPE FILE

Signs FILE and writes an envelope that contains it.

With --review it first shows FILE, JSON with one member a line, and asks. Where
nobody can be asked, --digest says what may be signed. So a release is signed on
a machine that has nothing but the key: "updater-bundle manifest" writes FILE,
and "updater-bundle attach" takes ENVELOPE.

  updater-sign sign --type application/vnd.example+json --key release.key -o notes.dsse notes.json
  updater-sign sign --review --type application/vnd.updaterd.manifest.v1+json --key release.key \
      -o demo.dsse demo.manifest
`

func (c *command) sign(ctx context.Context, args []string) error {
	f := c.Flags("sign", aboutSign)
	payloadType := f.String("type", "", "payload `TYPE`, a media type; verify must ask for the same")
	out := f.String("o", "", "write the envelope to `ENVELOPE` (- for standard output)")
	keys, look := cli.KeyOptions(f), cli.ReviewOptions(f)
	operands, err := c.Parse(f, args, "FILE")
	if err != nil {
		return err
	}
	if *payloadType == "" || *out == "" || len(keys.Refs) == 0 {
		return cli.Misuse("--type, --key and -o are needed")
	}
	if err := cli.Apart(*out, append(keys.Refs, operands...)...); err != nil {
		return err
	}
	payload, err := cli.ReadFile(operands[0], sign.MaxEnvelope)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	if err := look.Confirm(ctx, c.Program, cli.Digest(payload), review(*payloadType, payload)); err != nil {
		return err
	}
	signers, err := keys.Load(ctx, c.Program)
	if err != nil {
		return err
	}
	envelope, err := sign.Seal(*payloadType, payload, signers...)
	if err != nil {
		return err
	}
	return c.WriteFile(*out, envelope)
}
