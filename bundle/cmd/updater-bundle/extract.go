// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/updaterd/updaterd/sign/cli"
)

const aboutExtract = `Usage: updater-bundle extract --keyring DIR --document NAME -o OUT FILE

Writes a document of a bundle to a file, such as its sbom or its provenance;
"updater-bundle info" lists them. The signatures of the bundle and the digest of
the document are checked first, so what OUT has is what the signer put there.

  updater-bundle extract --keyring keys/ --document sbom -o demo-1.2.0.spdx.json demo-1.2.0.upb
`

func (c *command) extract(_ context.Context, args []string) error {
	f := c.Flags("extract", aboutExtract)
	name := f.String("document", "", "`NAME` of the document")
	out := f.String("o", "", "write it to `OUT`")
	trust := cli.TrustOptions(f)
	operands, err := c.Parse(f, args, "FILE")
	if err != nil {
		return err
	}
	if trust.Dir == "" || *name == "" || *out == "" {
		return cli.Misuse("--keyring, --document and -o are needed")
	}
	if err := cli.Apart(*out, operands[0]); err != nil {
		return err
	}
	file, err := open(trust, operands[0])
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.SaveDocument(*name, *out); err != nil {
		return fmt.Errorf("extract: %w", err)
	}
	d := file.Manifest.Document(*name)
	fmt.Fprintf(c.Stdout, "%s: %s, %d bytes, %v\n", *out, d.Type, d.Length, d.Digest)
	return nil
}
