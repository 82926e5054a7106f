// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutSign = `Usage: updater-bundle sign --key KEY [--key KEY]... [--review | --digest DIGEST] -o OUT FILE

Signs a bundle that was made by "create --unsigned". Your signature vouches for
the release, so every byte of the bundle is compared with its manifest first;
who made it, nobody can check. With --review it shows what "info" shows, and
asks. An encrypted bundle needs the --identity of one of its recipients. OUT may
be FILE itself.

Where the key is on a machine that no bundle gets to, use "manifest" and
"attach". A bundle that has a signature is signed by "resign".

  updater-bundle sign --review --key release.key -o demo-1.2.0.upb demo-1.2.0-unsigned.upb
`

func (c *command) sign(ctx context.Context, args []string) error {
	f := c.Flags("sign", aboutSign)
	out := f.String("o", "", "write the bundle to `OUT`")
	keys, look, ids := cli.KeyOptions(f), cli.ReviewOptions(f), identityOptions(f)
	operands, err := c.Parse(f, args, "FILE")
	if err != nil {
		return err
	}
	if len(keys.Refs) == 0 || *out == "" {
		return cli.Misuse("--key and -o are needed")
	}
	if err := cli.Apart(*out, keys.Refs...); err != nil {
		return err
	}
	draft, err := bundle.OpenDraft(operands[0])
	if err != nil {
		return err
	}
	defer draft.Close()
	if draft.Signatures > 0 {
		return fmt.Errorf("sign %s: it is signed already; updater-bundle resign makes sure by whom, and signs it anew", operands[0])
	}
	if err := ids.unlock(draft.Manifest); err != nil {
		return fmt.Errorf("sign %s: %w", operands[0], err)
	}
	report, end := c.progress("verifying")
	_, err = draft.Check(ctx, report)
	end()
	if err != nil {
		return fmt.Errorf("sign %s: %w", operands[0], err)
	}
	about, err := describeDraft(draft)
	if err != nil {
		return err
	}
	if err := look.Confirm(ctx, c.Program, about.Digest, about.show); err != nil {
		return err
	}
	signers, err := keys.Load(ctx, c.Program)
	if err != nil {
		return err
	}
	if err := draft.Sign(*out, signers...); err != nil {
		return err
	}
	c.signed(*out, signers)
	return nil
}

const aboutManifest = `Usage: updater-bundle manifest [--to-be-signed] -o OUT FILE

Writes the manifest of a bundle to a file of a few KB, for a machine that signs
and that the bundle itself need not get to. It prints the digest, which the
signer compares. Nobody checks the signatures, if there are any.

There "updater-sign sign --review" shows the manifest and signs it; "attach"
puts the signature into the bundle. A signer that knows nothing of envelopes,
such as a token's own tool, signs what --to-be-signed writes.

  updater-bundle manifest -o demo.manifest demo-1.2.0.upb
  updater-sign sign --review --type ` + bundle.PayloadType + ` --key release.key \
      -o demo.dsse demo.manifest
  updater-bundle attach --keyring keys/ --envelope demo.dsse -o demo-1.2.0.upb demo-1.2.0.upb
`

func (c *command) manifest(_ context.Context, args []string) error {
	f := c.Flags("manifest", aboutManifest)
	out := f.String("o", "", "write it to `OUT` (- for standard output)")
	raw := f.Bool("to-be-signed", false, "write the bytes that a signature is over: the manifest and its type, as DSSE joins them (PAE)")
	operands, err := c.Parse(f, args, "FILE")
	if err != nil {
		return err
	}
	if *out == "" {
		return cli.Misuse("-o OUT is missing")
	}
	if err := cli.Apart(*out, operands[0]); err != nil {
		return err
	}
	draft, err := bundle.OpenDraft(operands[0])
	if err != nil {
		return err
	}
	defer draft.Close()
	b := draft.Bytes()
	if *raw {
		b = sign.ToBeSigned(bundle.PayloadType, b)
	}
	if err := c.WriteFile(*out, b); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if *out != "-" {
		fmt.Fprintf(c.Stdout, "%s: %d bytes\ndigest of the release: %v\n", *out, len(b), draft.Digest)
	}
	return nil
}

const aboutAttach = `Usage: updater-bundle attach --keyring DIR [--threshold NUMBER | --policy FILE]
           (--envelope FILE | --signature KEY=FILE)... -o OUT FILE

Puts signatures that were made elsewhere into a bundle, beside those it has. The
manifest and the payload stay byte for byte as they are. What comes out is
verified with the keyring of devices; nothing is written unless they accept it.
OUT may be FILE itself.

An envelope is what "updater-sign sign" wrote about the manifest of this bundle.
A signature is over what "manifest --to-be-signed" writes: of an ECDSA P-256 key
over its SHA-256, in ASN.1, as OpenSSL and key services write it; of an Ed25519
key the 64 bytes, without hashing first.

  updater-bundle attach --keyring keys/ --threshold 2 --envelope ann.dsse --envelope bob.dsse \
      -o demo-1.2.0.upb demo-1.2.0-unsigned.upb
`

const maxSignature = 1 << 10 // ECDSA P-256 has 72 bytes at most

func (c *command) attach(_ context.Context, args []string) error {
	f := c.Flags("attach", aboutAttach)
	out := f.String("o", "", "write the bundle to `OUT`")
	var envelopes, signatures cli.List
	f.Var(&envelopes, "envelope", "signed envelope `FILE`; may be given again")
	f.Var(&signatures, "signature", "`KEY=FILE`: a public key, PEM, and the signature by it; may be given again")
	trust := cli.TrustOptions(f)
	operands, err := c.Parse(f, args, "FILE")
	if err != nil {
		return err
	}
	if trust.Dir == "" || len(envelopes)+len(signatures) == 0 || *out == "" {
		return cli.Misuse("--keyring, -o and --envelope or --signature are needed")
	}
	if err := cli.Apart(*out, envelopes...); err != nil {
		return err
	}
	detached, err := readDetached(envelopes, signatures)
	if err != nil {
		return err
	}
	policy, err := trust.Policy()
	if err != nil {
		return err
	}
	draft, err := bundle.OpenDraft(operands[0])
	if err != nil {
		return err
	}
	defer draft.Close()
	verified, err := draft.Attach(*out, policy, detached...)
	if err != nil {
		return err
	}
	for _, id := range verified.KeyIDs {
		fmt.Fprintf(c.Stdout, "%s: signed with key %s\n", *out, id)
	}
	return nil
}

func readDetached(envelopes, signatures []string) (all []bundle.Detached, err error) {
	for _, path := range envelopes {
		b, err := cli.ReadFile(path, sign.MaxEnvelope)
		if err != nil {
			return nil, fmt.Errorf("read envelope: %w", err)
		}
		all = append(all, bundle.Detached{Envelope: b})
	}
	for _, v := range signatures {
		key, path, found := strings.Cut(v, "=")
		if !found || key == "" || path == "" {
			return nil, cli.Misuse("--signature %s: want KEY=FILE", v)
		}
		b, err := os.ReadFile(key)
		if err != nil {
			return nil, fmt.Errorf("read public key: %w", err)
		}
		pub, err := sign.ParsePublicKey(b)
		if err != nil {
			return nil, fmt.Errorf("read public key %s: %w", key, err)
		}
		if b, err = cli.ReadFile(path, maxSignature); err != nil {
			return nil, fmt.Errorf("read signature: %w", err)
		}
		all = append(all, bundle.Detached{Signature: b, Key: pub})
	}
	return all, nil
}
