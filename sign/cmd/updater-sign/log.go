// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutLogRequest = `Usage: updater-sign log-request --keyring DIR --type TYPE [--policy FILE] [--signed-by KEYID] [--rekor VERSION] [-o OUT] ENVELOPE

Writes what to send to a transparency log (Rekor), so that it makes an entry for
a signature of the envelope. Nothing is sent. A log gets to see the digest of the
content, the signature and the public key; the whole content, if the key is an
Ed25519 one. What the log answers, "log-attach" puts into the envelope.

  updater-sign log-request --keyring keys/ --type application/vnd.example+json -o request.json notes.dsse
  curl -sS --fail --json @request.json -o entry.json https://rekor.example.com/api/v1/log/entries
  updater-sign log-attach --keyring keys/ --type application/vnd.example+json \
      --entry entry.json -o notes.dsse notes.dsse

Rekor 2 is asked at /api/v2/log/entries.
`

func (c *command) logRequest(_ context.Context, args []string) error {
	f := c.Flags("log-request", aboutLogRequest)
	payloadType := f.String("type", "", "payload `TYPE` that is expected")
	out := f.String("o", "-", "write the request to `OUT` (- for standard output)")
	id := f.String("signed-by", "", "take the signature by the key with this `KEYID`; needed if there are several")
	rekor := f.Int("rekor", sign.Rekor1, "`VERSION` of the log: 1 or 2")
	trust := cli.TrustOptions(f)
	operands, err := c.Parse(f, args, "ENVELOPE")
	if err != nil {
		return err
	}
	if *payloadType == "" || trust.Dir == "" {
		return cli.Misuse("--type and --keyring are needed")
	}
	if err := cli.Apart(*out, operands[0]); err != nil {
		return err
	}
	policy, err := trust.Policy()
	if err != nil {
		return err
	}
	envelope, err := cli.ReadFile(operands[0], sign.MaxEnvelope)
	if err != nil {
		return fmt.Errorf("read envelope: %w", err)
	}
	request, err := policy.LogRequest(envelope, *payloadType, *id, *rekor)
	if err != nil {
		return err
	}
	if err := c.WriteFile(*out, append(request, '\n')); err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	return nil
}

const aboutLogAttach = `Usage: updater-sign log-attach --keyring DIR --type TYPE [--policy FILE] --entry FILE -o OUT ENVELOPE

Puts what a transparency log answered beside the signature that it is about: an
entry of Rekor 1 or 2, or a Sigstore bundle with one. Content and signatures stay
byte for byte as they are. An older entry of the same log is replaced. OUT may be
ENVELOPE itself.

Nothing is written unless the entry is about a signature in the envelope, and the
inclusion proof leads to the checkpoint in it. With --policy, a log that it names
must have signed the checkpoint.

  updater-sign log-attach --keyring keys/ --policy policy.toml --type application/vnd.example+json \
      --entry entry.json -o notes.dsse notes.dsse
`

func (c *command) logAttach(_ context.Context, args []string) error {
	f := c.Flags("log-attach", aboutLogAttach)
	payloadType := f.String("type", "", "payload `TYPE` that is expected")
	out := f.String("o", "", "write the new envelope to `OUT` (- for standard output)")
	path := f.String("entry", "", "`FILE` that the log answered with")
	trust := cli.TrustOptions(f)
	operands, err := c.Parse(f, args, "ENVELOPE")
	if err != nil {
		return err
	}
	if *payloadType == "" || trust.Dir == "" || *path == "" || *out == "" {
		return cli.Misuse("--type, --keyring, --entry and -o are needed")
	}
	if err := cli.Apart(*out, *path); err != nil {
		return err
	}
	policy, err := trust.Policy()
	if err != nil {
		return err
	}
	envelope, err := cli.ReadFile(operands[0], sign.MaxEnvelope)
	if err != nil {
		return fmt.Errorf("read envelope: %w", err)
	}
	answer, err := cli.ReadFile(*path, sign.MaxLogResponse)
	if err != nil {
		return fmt.Errorf("read log entry: %w", err)
	}
	envelope, entry, err := policy.AttachEntry(envelope, *payloadType, answer)
	if err != nil {
		return fmt.Errorf("%s: %w", *path, err)
	}
	if err := c.WriteFile(*out, envelope); err != nil {
		return fmt.Errorf("write envelope: %w", err)
	}
	if *out != "-" {
		fmt.Fprintf(c.Stdout, "%s: signature by key %s: %v\n", *out, entry.KeyID, entry)
	}
	return nil
}
