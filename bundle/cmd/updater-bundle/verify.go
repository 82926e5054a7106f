// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutVerify = `Usage: updater-bundle verify --keyring DIR [--threshold NUMBER | --policy FILE] [--json] FILE

Checks all that can be checked without a device: the signatures, that every
byte of the file is accounted for, that every encoded chunk of every recipe is
the one that was signed, that every chunk which needs no source decodes to its
digest, and that the full recipe yields each whole image. What a patch yields
shows only with its source: see "updater-bundle apply". An encrypted bundle
needs the --identity of one of its recipients.

  updater-bundle verify --keyring keys/ demo-1.2.0.upb
`

func (c *command) verify(ctx context.Context, args []string) error {
	f := c.Flags("verify", aboutVerify)
	asJSON := f.Bool("json", false, "print JSON")
	trust, ids := cli.TrustOptions(f), identityOptions(f)
	operands, err := c.Parse(f, args, "FILE")
	if err != nil {
		return err
	}
	if trust.Dir == "" {
		return cli.Misuse("--keyring DIR is missing")
	}
	file, err := open(trust, operands[0])
	if err != nil {
		return err
	}
	defer file.Close()
	if err := ids.unlock(file.Manifest); err != nil {
		return fmt.Errorf("verify %s: %w", operands[0], err)
	}
	report, end := c.progress("verifying")
	checked, err := file.Check(ctx, report)
	end()
	if err != nil {
		return fmt.Errorf("verify %s: %w", operands[0], err)
	}
	if *asJSON {
		enc := json.NewEncoder(c.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			Digest     string           `json:"digest"`
			KeyIDs     []string         `json:"key_ids"`
			LogEntries []sign.LogEntry  `json:"log_entries,omitempty"` // that are proven
			Version    string           `json:"version"`
			Recipes    []bundle.Checked `json:"recipes"`
		}{file.Digest.String(), file.KeyIDs, file.Entries, file.Manifest.Version, checked})
	}
	for _, r := range checked {
		what := "all decoded, the whole image has the signed digest"
		switch r.Kind {
		case bundle.KindBlocks:
			what = "all frames decoded"
		case bundle.KindDelta:
			what = fmt.Sprintf("%d decoded, %d need the source", r.Decoded, r.Chunks-r.Decoded)
		}
		fmt.Fprintf(c.Stdout, "%s: %s: %d chunks (%s) authentic, %s\n", r.Class, r.Kind, r.Chunks, size(r.Bytes), what)
	}
	for _, e := range file.Entries {
		fmt.Fprintf(c.Stdout, "signature by key %s: %v\n", e.KeyID, e)
	}
	fmt.Fprintf(c.Stdout, "good: version %s, signed by %s\n", file.Manifest.Version, strings.Join(file.KeyIDs, ", "))
	return nil
}
