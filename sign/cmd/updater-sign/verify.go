// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutVerify = `Usage: updater-sign verify --keyring DIR --type TYPE [--threshold NUMBER | --policy FILE] [-o FILE] [--json] ENVELOPE

Checks that enough keys of the keyring signed the envelope, and tells which.
With -o it writes what was signed; nothing is written unless the check succeeds.

  updater-sign verify --keyring keys/ --type application/vnd.example+json -o notes.json notes.dsse
`

func (c *command) verify(ctx context.Context, args []string) error {
	f := c.Flags("verify", aboutVerify)
	payloadType := f.String("type", "", "payload `TYPE` that is expected")
	out := f.String("o", "", "write what was signed to `FILE` (- for standard output)")
	asJSON := f.Bool("json", false, "print the result as JSON")
	var created time.Time
	f.Func("created", "`TIME` that the content is of, such as 2026-01-31T12:00:00Z; without it no certificate counts", func(s string) (err error) {
		created, err = time.Parse(time.RFC3339, s)
		return err
	})
	trust := cli.TrustOptions(f)
	operands, err := c.Parse(f, args, "ENVELOPE")
	if err != nil {
		return err
	}
	if *payloadType == "" || trust.Dir == "" {
		return cli.Misuse("--type and --keyring are needed")
	}
	if *asJSON && *out == "-" {
		return cli.Misuse("--json and -o - both want standard output")
	}
	if err := cli.Apart(*out, operands...); err != nil {
		return err
	}
	envelope, err := cli.ReadFile(operands[0], sign.MaxEnvelope)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	verified, err := verify(trust, envelope, *payloadType, created)
	if err != nil {
		return err
	}
	if *out != "" {
		if err := c.WriteFile(*out, verified.Payload); err != nil {
			return fmt.Errorf("verify: %w", err)
		}
	}
	switch {
	case *asJSON:
		return json.NewEncoder(c.Stdout).Encode(struct {
			Type       string          `json:"type"`
			Size       int             `json:"size"`
			KeyIDs     []string        `json:"key_ids"`
			LogEntries []sign.LogEntry `json:"log_entries,omitempty"`
		}{*payloadType, len(verified.Payload), verified.KeyIDs, verified.Entries})
	case *out != "-":
		fmt.Fprintf(c.Stdout, "verified: %d bytes of %s\n", len(verified.Payload), *payloadType)
		for _, id := range verified.KeyIDs {
			fmt.Fprintf(c.Stdout, "signed by %s\n", id)
		}
		for _, e := range verified.Entries {
			fmt.Fprintf(c.Stdout, "signature by key %s: %v\n", e.KeyID, e)
		}
	}
	return nil
}

// verify takes created for the time that the content states.
func verify(trust *cli.Trust, envelope []byte, payloadType string, created time.Time) (*sign.Verified, error) {
	policy, err := trust.Policy()
	if err != nil {
		return nil, err
	}
	return policy.Verify(envelope, payloadType, time.Time{}, func([]byte) (sign.Claims, error) {
		return sign.Claims{Created: created}, nil
	})
}
