// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/canonical"
	"github.com/updaterd/updaterd/sign"
)

const (
	// PayloadType is the DSSE payload type of channel metadata.
	PayloadType = "application/vnd.updaterd.channel.v1+json"
	// Class is what the rules of a policy call channel metadata. No image can have
	// it, because a dot is not allowed there.
	Class = "channel.metadata"
	// Format is the format that this package reads and writes.
	Format = 1

	// MaxEnvelope bounds a file, in bytes.
	MaxEnvelope = 64 << 10
	// MaxReleases bounds what a channel can offer at a time.
	MaxReleases = 64
	// MaxURL bounds the place of a release, in bytes.
	MaxURL = 1024
)

// ErrMalformed: it is not channel metadata, whoever made it.
var ErrMalformed = errors.New("malformed channel metadata")

// Metadata is all that is signed, in the order of its canonical JSON.
type Metadata struct {
	Format  int    `json:"format"`
	Channel string `json:"channel"`
	// Serial orders the metadata of a channel. It only rises.
	Serial uint64 `json:"serial"`
	// Issued and Expires are in UTC and whole seconds.
	Issued   time.Time `json:"issued"`
	Expires  time.Time `json:"expires"`
	Releases []Release `json:"releases"`
}

// A Release is one that the channel offers.
type Release struct {
	Compatible []string `json:"compatible"`
	Version    string   `json:"version"`
	Sequence   uint64   `json:"sequence"`
	// Digest is that of the manifest: it identifies the release.
	Digest bundle.Digest `json:"digest"`
	// URL is where the bundle is: http, https, or relative to the metadata's own.
	URL string `json:"url"`
	// Size of the bundle in bytes, to be shown; 0 if it is not told.
	Size int64 `json:"size,omitempty"`
}

// Best is the release with the highest sequence for a kind of device, nil if there
// is none.
func (m *Metadata) Best(compatible string) *Release {
	var best *Release
	for i := range m.Releases {
		r := &m.Releases[i]
		if slices.Contains(r.Compatible, compatible) && (best == nil || r.Sequence > best.Sequence) {
			best = r
		}
	}
	return best
}

// At is the URL of the bundle, for metadata that came from base.
func (r *Release) At(base *url.URL) (string, error) {
	u, err := url.Parse(r.URL)
	if err != nil {
		return "", fmt.Errorf("%w: URL of version %s: %v", ErrMalformed, r.Version, err)
	}
	return base.ResolveReference(u).String(), nil
}

// Verified is metadata whose signatures were checked.
type Verified struct {
	*Metadata
	// Digest is that of what was signed. Two statements with one serial and
	// different digests contradict each other.
	Digest bundle.Digest
	KeyIDs []string
}

// Verify checks a file of channel metadata. The policy is asked for [Class], in the
// channel and of the time that the metadata state. notBefore is the earliest time
// that it can be now, zero if nothing is known of it.
func Verify(envelope []byte, policy *sign.Policy, notBefore time.Time) (*Verified, error) {
	if len(envelope) > MaxEnvelope {
		return nil, fmt.Errorf("verify channel metadata: %w: %d bytes, at most %d", ErrMalformed, len(envelope), MaxEnvelope)
	}
	var m *Metadata
	trusted, err := policy.Verify(envelope, PayloadType, notBefore, func(payload []byte) (claims sign.Claims, err error) {
		if m, err = Parse(payload); err != nil {
			return claims, err
		}
		return sign.Claims{Created: m.Issued, Channel: m.Channel, Classes: []string{Class}}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("verify channel metadata: %w", err)
	}
	return &Verified{Metadata: m, Digest: bundle.Sum(trusted.Payload), KeyIDs: trusted.KeyIDs}, nil
}

// Parse reads metadata that obey every rule of the format. It must only see bytes
// whose signature was verified; [Verify] does that.
func Parse(b []byte) (*Metadata, error) {
	if len(b) > MaxEnvelope {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(b), MaxEnvelope)
	}
	m := new(Metadata)
	err := canonical.Unmarshal(b, m)
	if err == nil {
		err = m.validate()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	return m, nil
}

// Marshal checks metadata and returns their canonical JSON. Neither it nor [Seal] is
// a method: those of a type that is encoded are linked into a device, which makes none.
func Marshal(m *Metadata) ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("write channel metadata: %v", err)
	}
	return canonical.Marshal(m)
}

// Seal signs metadata: the bytes of the file.
func Seal(m *Metadata, signers ...sign.Signer) ([]byte, error) {
	payload, err := Marshal(m)
	if err != nil {
		return nil, err
	}
	b, err := sign.Seal(PayloadType, payload, signers...)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxEnvelope {
		return nil, fmt.Errorf("write channel metadata: %d bytes, at most %d; offer fewer releases", len(b), MaxEnvelope)
	}
	return b, nil
}

func (m *Metadata) validate() error {
	if m.Format != Format {
		return fmt.Errorf("format %d, this program reads %d; update it first", m.Format, Format)
	}
	if err := bundle.CheckChannel(m.Channel); err != nil {
		return err
	}
	if m.Serial == 0 {
		return errors.New("serial is 0, the first one is 1")
	}
	if err := bundle.CheckPeriod(m.Issued, m.Expires); err != nil {
		return err
	}
	if m.Releases == nil || len(m.Releases) > MaxReleases {
		return fmt.Errorf("%d releases, want a list of at most %d", len(m.Releases), MaxReleases)
	}
	for i := range m.Releases {
		if err := m.Releases[i].validate(); err != nil {
			return fmt.Errorf("release %d: %w", i+1, err)
		}
	}
	return m.unambiguous()
}

// unambiguous tells whether each device has one best release.
func (m *Metadata) unambiguous() error {
	for i := range m.Releases {
		r := &m.Releases[i]
		for _, other := range m.Releases[:i] {
			for _, compatible := range r.Compatible {
				if other.Sequence == r.Sequence && slices.Contains(other.Compatible, compatible) {
					return fmt.Errorf("two releases with sequence %d for %s", r.Sequence, compatible)
				}
			}
		}
	}
	return nil
}

func (r *Release) validate() error {
	if err := bundle.CheckRelease(r.Compatible, r.Version); err != nil {
		return err
	}
	if r.Size < 0 {
		return fmt.Errorf("size %d", r.Size)
	}
	return checkURL(r.URL)
}

// checkURL allows what is fetched as it stands: no credentials, which everybody could
// read here, no fragment, and nothing that has to be escaped first.
func checkURL(s string) error {
	if s == "" || len(s) > MaxURL || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return fmt.Errorf("URL %.80q: want 1 to %d printable ASCII characters", s, MaxURL)
	}
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("URL %.80q: it cannot be read", s)
	}
	absolute := (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
	relative := u.Scheme == "" && u.Host == ""
	if !absolute && !relative || u.Path == "" || u.User != nil || strings.Contains(s, "#") {
		return fmt.Errorf("URL %.80q: want http, https, or a path relative to the metadata; without user and fragment", s)
	}
	return nil
}

// Unverified reads the metadata of a file without checking a signature. It is for
// showing, never for use.
func Unverified(envelope []byte) (*Metadata, error) {
	if len(envelope) > MaxEnvelope {
		return nil, fmt.Errorf("read channel metadata: %w: %d bytes, at most %d", ErrMalformed, len(envelope), MaxEnvelope)
	}
	payload, _, err := sign.Unverified(envelope, PayloadType)
	if err != nil {
		return nil, fmt.Errorf("read channel metadata: %w", err)
	}
	m, err := Parse(payload)
	if err != nil {
		return nil, fmt.Errorf("read channel metadata: %w", err)
	}
	return m, nil
}
