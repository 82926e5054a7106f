// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"flag"
	"fmt"

	"github.com/updaterd/updaterd/sign"
)

const aboutVerify = `Usage: updater-sign verify --keyring DIR --type TYPE [OPTIONS] ENVELOPE

Checks that enough keys of the keyring signed the envelope, and tells which.
With -o it writes what was signed; nothing is written unless the check succeeds.

  updater-sign verify --keyring keys/ --type application/vnd.example+json -o notes.json notes.dsse
`

func (c *command) verify(args []string) error {
	f := c.flags("verify", aboutVerify)
	payloadType := f.String("type", "", "payload `TYPE` that is expected")
	out := f.String("o", "", "write what was signed to `FILE` (- for standard output)")
	asJSON := f.Bool("json", false, "print the result as JSON")
	trust := c.trustOptions(f)
	operands, err := c.parse(f, args, 1)
	if err != nil {
		return err
	}
	if *payloadType == "" || trust.dir == "" {
		return c.misuse(f, "--type and --keyring are needed")
	}
	if *asJSON && *out == "-" {
		return c.misuse(f, "--json and -o - both want standard output")
	}
	envelope, err := readFile(operands[0], sign.MaxEnvelope)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	verified, err := trust.verify(envelope, *payloadType)
	if err != nil {
		return err
	}
	if *out != "" {
		if err := c.write(*out, verified.Payload); err != nil {
			return fmt.Errorf("verify: %w", err)
		}
	}
	switch {
	case *asJSON:
		return json.NewEncoder(c.stdout).Encode(struct {
			Type   string   `json:"type"`
			Size   int      `json:"size"`
			KeyIDs []string `json:"key_ids"`
		}{*payloadType, len(verified.Payload), verified.KeyIDs})
	case *out != "-":
		fmt.Fprintf(c.stdout, "verified: %d bytes of %s\n", len(verified.Payload), *payloadType)
		for _, id := range verified.KeyIDs {
			fmt.Fprintf(c.stdout, "signed by %s\n", id)
		}
	}
	return nil
}

// trustOptions are the options of every command that verifies.
type trustOptions struct {
	dir       string
	threshold int
}

func (c *command) trustOptions(f *flag.FlagSet) *trustOptions {
	t := &trustOptions{}
	f.StringVar(&t.dir, "keyring", "", "`DIR` with the public keys to believe, *.pem and *.pub")
	f.IntVar(&t.threshold, "threshold", 1, "`NUMBER` of different keys that must have signed")
	return t
}

func (t *trustOptions) verify(envelope []byte, payloadType string) (*sign.Verified, error) {
	keyring, err := sign.LoadKeyring(t.dir)
	if err != nil {
		return nil, err
	}
	return keyring.Verify(envelope, payloadType, t.threshold)
}
