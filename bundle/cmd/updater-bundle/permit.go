// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/permit"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutPermit = `Usage: updater-bundle permit --compatible NAME (--device ID | --group NAME)... --first N --last N --expires TIME --key KEY -o OUT [OPTION]...

Makes a permit: the signed leave for certain devices to install releases below
their version floor, until a time. Devices refuse to go back otherwise. It is
given to a device with the release:

  updater-bundle permit --compatible demo-board --device 4c4c4544 --first 11 --last 11 \
      --expires 7d --key release.key -o back.permit
  updaterctl install --permit back.permit demo-1.1.upb

A device shows its id and its groups with "updaterctl status". Once it has
confirmed the release, its floor is that of the release or --first, whichever is
higher. A permit can be used again until its end; the policy of devices can deny
one by its digest, which "updater-bundle info" shows. It must be signed as that
policy asks for the class floor.permit, or without a policy as a bundle is.
`

func (c *command) permit(ctx context.Context, args []string) error {
	f := c.Flags("permit", aboutPermit)
	var compatible, devices, groups cli.List
	f.Var(&compatible, "compatible", "`NAME` of a kind of device; may be given again")
	f.Var(&devices, "device", "`ID` of a device that it is for; may be given again")
	f.Var(&groups, "group", "`NAME` of a group of devices that it is for; may be given again")
	first := f.Uint64("first", 0, "lowest `SEQUENCE` that may be installed, and to which the floor may be lowered")
	last := f.Uint64("last", 0, "highest `SEQUENCE` that may be installed")
	expires := f.String("expires", "", "`TIME` when it ends: from now on, as 14d or 36h, or as 2026-01-31T12:00:00Z")
	issued := f.String("issued", "", "`TIME` of the permit, in seconds since 1970 or as 2026-01-31T12:00:00Z (default: SOURCE_DATE_EPOCH, else now)")
	out := f.String("o", "", "write the permit to `OUT`")
	keys := cli.KeyOptions(f)
	if _, err := c.Parse(f, args); err != nil {
		return err
	}
	if len(compatible) == 0 || len(devices)+len(groups) == 0 || *last == 0 || *expires == "" || len(keys.Refs) == 0 || *out == "" {
		return cli.Misuse("--compatible, --device or --group, --last, --expires, --key and -o are needed")
	}
	if err := cli.Apart(*out, keys.Refs...); err != nil {
		return err
	}
	at, err := signedTime("--issued", *issued, c.Getenv)
	if err != nil {
		return cli.Misuse("%v", err)
	}
	p := &permit.Permit{Format: permit.Format, ID: newPermitID(), Compatible: compatible, Devices: devices, Groups: groups,
		First: *first, Last: *last, Issued: at.UTC().Truncate(time.Second)}
	if p.Expires, err = until(*expires, p.Issued); err != nil {
		return cli.Misuse("--expires %q: %v", *expires, err)
	}
	signers, err := keys.Load(ctx, c.Program)
	if err != nil {
		return err
	}
	b, err := permit.Seal(p, signers...)
	if err != nil {
		return err
	}
	if err := bundle.WriteFile(*out, b); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "%s:\n", *out)
	c.printPermit(p)
	return nil
}

// newPermitID is drawn by chance: nobody has to keep count.
func newPermitID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// aboutPermitFile is what info --json prints of a permit.
type aboutPermitFile struct {
	Verified bool     `json:"verified"`
	KeyIDs   []string `json:"key_ids"` // that signed it, if verified
	Digest   string   `json:"digest"`
	*permit.Permit
}

// isPermit tells a permit from other signed JSON.
func isPermit(path string) bool {
	b, err := readChannel(path)
	if err != nil {
		return false
	}
	_, _, err = sign.Unverified(b, permit.PayloadType)
	return err == nil
}

// lookPermit reads a permit with a keyring, or shows what nobody has verified.
func lookPermit(path string, trust *cli.Trust) (*aboutPermitFile, error) {
	b, err := readChannel(path)
	if err != nil {
		return nil, err
	}
	a := &aboutPermitFile{KeyIDs: []string{}}
	if trust.Dir == "" {
		payload, _, err := sign.Unverified(b, permit.PayloadType)
		if err == nil {
			a.Permit, err = permit.Parse(payload)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		a.Digest = bundle.Sum(payload).String()
		return a, nil
	}
	policy, err := trust.Policy()
	if err != nil {
		return nil, err
	}
	v, err := permit.Verify(b, policy, time.Time{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	a.Verified, a.KeyIDs, a.Digest, a.Permit = true, v.KeyIDs, v.Digest.String(), v.Permit
	return a, nil
}

func (c *command) printPermit(p *permit.Permit) {
	w := tabwriter.NewWriter(c.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "permit\t%s\n", p.ID)
	fmt.Fprintf(w, "compatible\t%s\n", strings.Join(p.Compatible, ", "))
	for _, d := range p.Devices {
		fmt.Fprintf(w, "device\t%s\n", d)
	}
	for _, g := range p.Groups {
		fmt.Fprintf(w, "group\t%s\n", g)
	}
	fmt.Fprintf(w, "sequences\t%d to %d\n", p.First, p.Last)
	fmt.Fprintf(w, "issued\t%s\n", p.Issued.Format(time.RFC3339))
	fmt.Fprintf(w, "expires\t%s\n", p.Expires.Format(time.RFC3339))
	w.Flush()
}
