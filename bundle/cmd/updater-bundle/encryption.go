// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/seal"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutKeygen = `Usage: updater-bundle keygen -o NAME

Makes what a bundle is encrypted for: NAME.identity, a secret that goes onto the
devices of a group (root alone may read it), and NAME.recipient, which
"updater-bundle create --recipient" takes. Existing files are never overwritten.
Keep a copy of the identity: nothing else reads what is encrypted for it.

  updater-bundle keygen -o fleet-2026
`

func (c *command) keygen(_ context.Context, args []string) error {
	f := c.Flags("keygen", aboutKeygen)
	name := f.String("o", "", "write `NAME`.identity and NAME.recipient")
	if _, err := c.Parse(f, args); err != nil {
		return err
	}
	if *name == "" {
		return cli.Misuse("-o NAME is missing")
	}
	private, public := *name+".identity", *name+".recipient"
	for _, path := range []string{private, public} {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("make identity: %s is already there; choose another name", path)
		}
	}
	id, err := seal.NewIdentity()
	if err != nil {
		return err
	}
	text, err := seal.MarshalIdentity(id)
	if err != nil {
		return err
	}
	if err := cli.WriteNew(private, text, 0o600); err != nil {
		return fmt.Errorf("make identity: %w", err)
	}
	if err := cli.WriteNew(public, seal.MarshalRecipient(id.Recipient()), 0o644); err != nil {
		os.Remove(private)
		return fmt.Errorf("make identity: %w", err)
	}
	fmt.Fprintf(c.Stdout, "identity %s\nrecipient %s\nid %s\n", private, public, id.Recipient().ID())
	return nil
}

// identities are the option of every command that looks into images.
type identities struct{ files cli.List }

func identityOptions(f *flag.FlagSet) *identities {
	o := &identities{}
	f.Var(&o.files, "identity", "`FILE` that reads what is encrypted; may be given again")
	return o
}

func (o *identities) load() (ids []*seal.Identity, err error) {
	for _, path := range o.files {
		id, err := seal.LoadIdentity(path)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// unlock makes the images of a bundle readable, if they are encrypted.
func (o *identities) unlock(m *bundle.Manifest) error {
	ids, err := o.load()
	if err != nil {
		return err
	}
	return m.Unlock(ids...)
}

// recipients loads whom a bundle is for.
func recipients(files []string) (all []*seal.Recipient, err error) {
	for _, path := range files {
		r, err := seal.LoadRecipient(path)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}
