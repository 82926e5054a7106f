// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/updaterd/updaterd/bundle"
)

const aboutVerify = `Usage: updater-bundle verify --keyring DIR [--threshold N] [--json] FILE

Checks all that can be checked without a device: the signatures, that every
byte of the file is accounted for, that every encoded chunk of every recipe is
the one that was signed, that every chunk which needs no source decodes to its
digest, and that the full recipe yields each whole image. What a patch yields
shows only with its source: see "updater-bundle apply".

  updater-bundle verify --keyring keys/ demo-1.2.0.upb
`

func (c *command) verify(ctx context.Context, args []string) error {
	f := c.flags("verify", aboutVerify)
	asJSON := f.Bool("json", false, "print JSON")
	trust := c.trustOptions(f)
	operands, err := c.parse(f, args, 1)
	if err != nil {
		return err
	}
	if trust.dir == "" {
		return c.misuse(f, "--keyring DIR is missing")
	}
	file, err := trust.open(operands[0])
	if err != nil {
		return err
	}
	defer file.Close()
	report, end := c.progress("verifying")
	checked, err := file.Check(ctx, report)
	end()
	if err != nil {
		return fmt.Errorf("verify %s: %w", operands[0], err)
	}
	if *asJSON {
		enc := json.NewEncoder(c.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			Digest  string           `json:"digest"`
			KeyIDs  []string         `json:"key_ids"`
			Version string           `json:"version"`
			Recipes []bundle.Checked `json:"recipes"`
		}{file.Digest.String(), file.KeyIDs, file.Manifest.Version, checked})
	}
	for _, r := range checked {
		what := "all decoded, the whole image has the signed digest"
		if r.Kind != bundle.KindFull {
			what = fmt.Sprintf("%d decoded, %d need the source", r.Decoded, r.Chunks-r.Decoded)
		}
		fmt.Fprintf(c.stdout, "%s: %s: %d chunks (%s) authentic, %s\n", r.Class, r.Kind, r.Chunks, size(r.Bytes), what)
	}
	fmt.Fprintf(c.stdout, "good: version %s, signed by %s\n", file.Manifest.Version, strings.Join(file.KeyIDs, ", "))
	return nil
}
