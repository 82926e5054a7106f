// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/channel"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutChannel = `Usage: updater-bundle channel --channel CHANNEL --expires TIME --release URL=FILE (--key KEY | --unsigned) -o OUT [OPTION]...
       updater-bundle channel --renew OLD --expires TIME (--key KEY | --unsigned) -o OUT [OPTION]...

Makes channel metadata: the signed statement of which releases a channel offers,
and until when that holds. A device with [channel] in its configuration fetches
it, refuses what is older than what it has seen, shows when it has expired, and
installs only the very releases that it names.

What it says of a release is taken from the bundle, which is verified with
--keyring, or without one must be signed with one of the keys that sign now. URL
is where devices find it: http, https, or relative to the metadata's own URL.

--renew OLD states the same releases anew, with a later end and a higher serial.
OLD is verified likewise, and OUT may be OLD itself: run it before the end comes,
for instance once a day.

With --unsigned it makes what is to be signed, for "updater-sign sign --type
application/vnd.updaterd.channel.v1+json" where the key is.

  updater-bundle channel --channel stable --expires 14d --release demo-1.2.0.upb=demo-1.2.0.upb \
      --key release.key -o stable.channel
  updater-bundle channel --renew stable.channel --expires 14d --key release.key -o stable.channel
`

func (c *command) channel(ctx context.Context, args []string) error {
	f := c.Flags("channel", aboutChannel)
	var o channelOptions
	f.StringVar(&o.channel, "channel", "", "name of the `CHANNEL`, as devices are configured with it")
	f.StringVar(&o.expires, "expires", "", "`TIME` when it ends: from now on, as 14d or 36h, or as 2026-01-31T12:00:00Z")
	f.Var(&o.releases, "release", "`URL=FILE`: offer the release in the bundle FILE, which devices find at URL; may be given again")
	f.StringVar(&o.renew, "renew", "", "offer what the channel metadata in `OLD` offer")
	f.Uint64Var(&o.serial, "serial", 0, "`NUMBER` that only rises (default: the time in seconds, or with --renew one more than OLD if that is higher)")
	f.StringVar(&o.issued, "issued", "", "`TIME` of the statement, in seconds since 1970 or as 2026-01-31T12:00:00Z (default: SOURCE_DATE_EPOCH, else now)")
	unsigned := f.Bool("unsigned", false, "leave the signing to updater-sign; no device accepts it until it is signed")
	out := f.String("o", "", "write the metadata to `OUT`")
	keys, trust := cli.KeyOptions(f), cli.TrustOptions(f)
	if _, err := c.Parse(f, args); err != nil {
		return err
	}
	switch {
	case (o.channel == "") == (o.renew == ""):
		return cli.Misuse("either --channel CHANNEL or --renew OLD is needed")
	case o.renew != "" && len(o.releases) > 0:
		return cli.Misuse("--renew OLD offers what OLD does; leave --release out")
	case o.expires == "" || *out == "":
		return cli.Misuse("--expires and -o are needed")
	case (len(keys.Refs) == 0) != *unsigned:
		return cli.Misuse("either --key KEY or --unsigned is needed")
	case *unsigned && trust.Dir == "":
		return cli.Misuse("--unsigned needs --keyring, to verify what is offered")
	}
	if err := cli.Apart(*out, keys.Refs...); err != nil {
		return err
	}
	if err := trust.Check(); err != nil {
		return err
	}
	m, err := o.frame(c.Getenv)
	if err != nil {
		return cli.Misuse("%v", err)
	}
	signers, err := keys.Load(ctx, c.Program)
	if err != nil {
		return err
	}
	policy, err := believed(trust, signers)
	if err != nil {
		return err
	}
	if err := o.fill(m, policy); err != nil {
		if errors.Is(err, sign.ErrUntrusted) && trust.Dir == "" {
			err = fmt.Errorf("%w; without --keyring it must be signed with a key that signs now", err)
		}
		return err
	}
	var b []byte
	if *unsigned {
		b, err = channel.Marshal(m)
	} else {
		b, err = channel.Seal(m, signers...)
	}
	if err != nil {
		return err
	}
	if err := bundle.WriteFile(*out, b); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "%s:\n", *out)
	c.printChannel(m)
	return nil
}

type channelOptions struct {
	channel, expires, renew, issued string
	releases                        cli.List
	serial                          uint64
}

// frame is the metadata without their releases.
func (o *channelOptions) frame(getenv func(string) (string, bool)) (*channel.Metadata, error) {
	issued, err := signedTime("--issued", o.issued, getenv)
	if err != nil {
		return nil, err
	}
	m := &channel.Metadata{Format: channel.Format, Channel: o.channel, Serial: o.serial,
		Issued: issued.UTC().Truncate(time.Second), Releases: []channel.Release{}}
	if m.Expires, err = until(o.expires, m.Issued); err != nil {
		return nil, fmt.Errorf("--expires %q: %v", o.expires, err)
	}
	if m.Serial == 0 {
		m.Serial = uint64(m.Issued.Unix())
	}
	return m, nil
}

// until reads a time, or how long it is from start.
func until(s string, start time.Time) (time.Time, error) {
	if days, found := strings.CutSuffix(s, "d"); found {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n > 0 {
			return start.AddDate(0, 0, int(n)), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= time.Second {
		return start.Add(d).Truncate(time.Second), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, errors.New("want a number of days or hours, as 14d or 36h, or a time like 2026-01-31T12:00:00Z")
	}
	if t = t.UTC().Truncate(time.Second); !t.After(start) {
		return t, fmt.Errorf("that is over at %s", start.Format(time.RFC3339))
	}
	return t, nil
}

// fill adds the releases, from bundles or from older metadata.
func (o *channelOptions) fill(m *channel.Metadata, policy *sign.Policy) error {
	if o.renew != "" {
		b, err := readChannel(o.renew)
		if err != nil {
			return err
		}
		old, err := channel.Verify(b, policy, time.Time{})
		if err != nil {
			return fmt.Errorf("%s: %w", o.renew, err)
		}
		m.Channel, m.Releases = old.Channel, old.Releases
		if o.serial == 0 {
			m.Serial = max(m.Serial, old.Serial+1)
		}
		if m.Serial <= old.Serial {
			return cli.Misuse("--serial %d: that of %s is %d, and devices refuse what is not higher", m.Serial, o.renew, old.Serial)
		}
		return nil
	}
	for _, v := range o.releases {
		// A URL may have a query with = in it.
		i := strings.LastIndex(v, "=")
		if i <= 0 || i == len(v)-1 {
			return cli.Misuse("--release %s: want URL=FILE", v)
		}
		r, err := releaseOf(v[i+1:], policy, m.Channel)
		if err != nil {
			return err
		}
		r.URL = v[:i]
		m.Releases = append(m.Releases, *r)
	}
	return nil
}

// releaseOf is what a bundle says of itself.
func releaseOf(path string, policy *sign.Policy, name string) (*channel.Release, error) {
	f, err := bundle.Open(path, policy)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := f.Manifest
	if m.Channel != "" && m.Channel != name {
		return nil, fmt.Errorf("%s: the bundle is signed for channel %q, not %q", path, m.Channel, name)
	}
	return &channel.Release{Compatible: m.Compatible, Version: m.Version, Sequence: m.Sequence,
		Digest: f.Digest, Size: f.PayloadOffset + f.PayloadSize}, nil
}

// readChannel reads a file of channel metadata.
func readChannel(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, channel.MaxEnvelope+1))
}

// isChannel tells channel metadata, which are JSON, from a bundle.
func isChannel(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var first [1]byte
	_, err = io.ReadFull(f, first[:])
	return err == nil && first[0] == '{'
}

// aboutChannelFile is what info --json prints of channel metadata.
type aboutChannelFile struct {
	Verified bool     `json:"verified"`
	KeyIDs   []string `json:"key_ids"` // that signed it, if verified
	*channel.Metadata
}

// lookChannel reads metadata with a keyring, or shows what nobody has verified.
func lookChannel(path string, trust *cli.Trust) (*aboutChannelFile, error) {
	b, err := readChannel(path)
	if err != nil {
		return nil, err
	}
	a := &aboutChannelFile{KeyIDs: []string{}}
	if trust.Dir == "" {
		if a.Metadata, err = channel.Unverified(b); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return a, nil
	}
	policy, err := trust.Policy()
	if err != nil {
		return nil, err
	}
	v, err := channel.Verify(b, policy, time.Time{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	a.Verified, a.KeyIDs, a.Metadata = true, v.KeyIDs, v.Metadata
	return a, nil
}

func (c *command) printChannel(m *channel.Metadata) {
	w := tabwriter.NewWriter(c.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "channel\t%s\n", m.Channel)
	fmt.Fprintf(w, "serial\t%d\n", m.Serial)
	fmt.Fprintf(w, "issued\t%s\n", m.Issued.Format(time.RFC3339))
	fmt.Fprintf(w, "expires\t%s\n", m.Expires.Format(time.RFC3339))
	for _, r := range m.Releases {
		fmt.Fprintf(w, "release\t%s, sequence %d, for %s\n", r.Version, r.Sequence, strings.Join(r.Compatible, ", "))
		fmt.Fprintf(w, "\t%s\n\t%v\n", r.URL, r.Digest)
	}
	w.Flush()
}
