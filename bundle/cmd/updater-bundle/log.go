// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutLogRequest = `Usage: updater-bundle log-request --keyring DIR [--policy FILE] [--signed-by KEYID] [--rekor VERSION] [-o OUT] FILE

Writes what to send to a transparency log (Rekor), so that it makes an entry for
a signature of the bundle. Nothing is sent. A log gets to see the digest of the
manifest, the signature and the public key; the whole manifest, if the key is an
Ed25519 one. What the log answers, "log-attach" puts into the bundle.

  updater-bundle log-request --keyring keys/ -o request.json demo-1.2.0.upb
  curl -sS --fail --json @request.json -o entry.json https://rekor.example.com/api/v1/log/entries
  updater-bundle log-attach --keyring keys/ --entry entry.json -o demo-1.2.0.upb demo-1.2.0.upb

Rekor 2 is asked at /api/v2/log/entries.
`

func (c *command) logRequest(_ context.Context, args []string) error {
	f := c.Flags("log-request", aboutLogRequest)
	out := f.String("o", "-", "write the request to `OUT` (- for standard output)")
	id := f.String("signed-by", "", "take the signature by the key with this `KEYID`; needed if there are several")
	rekor := f.Int("rekor", sign.Rekor1, "`VERSION` of the log: 1 or 2")
	trust := cli.TrustOptions(f)
	operands, err := c.Parse(f, args, "FILE")
	if err != nil {
		return err
	}
	if trust.Dir == "" {
		return cli.Misuse("--keyring DIR is missing")
	}
	if err := cli.Apart(*out, operands[0]); err != nil {
		return err
	}
	file, policy, err := openUnlogged(trust, operands[0])
	if err != nil {
		return err
	}
	defer file.Close()
	request, err := file.LogRequest(policy, *id, *rekor)
	if err != nil {
		return err
	}
	if err := c.WriteFile(*out, append(request, '\n')); err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	return nil
}

const aboutLogAttach = `Usage: updater-bundle log-attach --keyring DIR [--policy FILE] --entry FILE -o OUT FILE

Puts what a transparency log answered beside the signature that it is about: an
entry of Rekor 1 or 2, or a Sigstore bundle with one. Manifest, payload and
signatures stay byte for byte as they are. An older entry of the same log is
replaced. OUT may be FILE itself.

Nothing is written unless the entry is about a signature in the bundle, and the
inclusion proof leads to the checkpoint in it. With --policy, a log that it names
must have signed the checkpoint. An entry that has no proof yet is got again from
the log: /api/v1/log/entries/UUID, which its answer was found by.

  updater-bundle log-attach --keyring keys/ --policy policy.toml --entry entry.json \
      -o demo-1.2.0.upb demo-1.2.0.upb
`

func (c *command) logAttach(_ context.Context, args []string) error {
	f := c.Flags("log-attach", aboutLogAttach)
	out := f.String("o", "", "write the bundle to `OUT`")
	path := f.String("entry", "", "`FILE` that the log answered with")
	trust := cli.TrustOptions(f)
	operands, err := c.Parse(f, args, "FILE")
	if err != nil {
		return err
	}
	if trust.Dir == "" || *path == "" || *out == "" {
		return cli.Misuse("--keyring, --entry and -o are needed")
	}
	if err := cli.Apart(*out, *path); err != nil {
		return err
	}
	answer, err := cli.ReadFile(*path, sign.MaxLogResponse)
	if err != nil {
		return fmt.Errorf("read log entry: %w", err)
	}
	file, policy, err := openUnlogged(trust, operands[0])
	if err != nil {
		return err
	}
	defer file.Close()
	entry, err := file.AttachEntry(*out, policy, answer)
	if err != nil {
		return fmt.Errorf("%s: %w", *path, err)
	}
	fmt.Fprintf(c.Stdout, "%s: signature by key %s: %s\n", *out, entry.KeyID, entry)
	return nil
}

// openUnlogged opens a bundle that is about to be logged: all that the policy asks for
// but log entries must be there.
func openUnlogged(trust *cli.Trust, path string) (*bundle.File, *sign.Policy, error) {
	policy, err := trust.Policy()
	if err != nil {
		return nil, nil, err
	}
	file, err := bundle.Open(path, policy.Unlogged())
	return file, policy, err
}
