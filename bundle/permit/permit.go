// SPDX-License-Identifier: Apache-2.0

package permit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/canonical"
	"github.com/updaterd/updaterd/sign"
)

const (
	// PayloadType is the DSSE payload type of permits.
	PayloadType = "application/vnd.updaterd.permit.v1+json"
	// Class is what the rules of a policy call permits. No image can have it,
	// because a dot is not allowed there.
	Class = "floor.permit"
	// Format is the format that this package reads and writes.
	Format = 1

	// MaxEnvelope bounds a file, in bytes: the journal of a device keeps it.
	MaxEnvelope = 64 << 10
	// MaxNames bounds the devices, and the groups, of one permit.
	MaxNames = 1024
	// maxName bounds the name of one, in bytes.
	maxName = 64
	// idSize is the size of an ID, in bytes; it is drawn by chance.
	idSize = 16
)

var (
	// ErrMalformed: it is no permit, whoever made it.
	ErrMalformed = errors.New("malformed permit")
	// ErrNotAllowed: a permit, but not for this device, release or time.
	ErrNotAllowed = errors.New("the permit does not allow it")
)

// A Permit is all that is signed, in the order of its canonical JSON.
type Permit struct {
	Format int `json:"format"`
	// ID tells permits apart, in logs and results: 32 lower-case hex digits.
	ID         string   `json:"id"`
	Compatible []string `json:"compatible"`
	// Devices and Groups say whom it is for: a device that is one of Devices, or in
	// one of Groups. One of them has names.
	Devices []string `json:"devices,omitempty"`
	Groups  []string `json:"groups,omitempty"`
	// First and Last are the sequences that may be installed. The floor is lowered
	// to First at most.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Issued and Expires are in UTC and whole seconds.
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
}

// A Device is who asks.
type Device struct {
	Compatible string
	ID         string // "" if it has none
	Groups     []string
}

// Allows tells why p does not let a device install a release with that sequence now,
// the later one of its clock and its time floor.
func (p *Permit) Allows(d Device, sequence uint64, now time.Time) error {
	who := func(format string, args ...any) error {
		return fmt.Errorf("permit %s: %w: %s", p.ID, ErrNotAllowed, fmt.Sprintf(format, args...))
	}
	switch {
	case !slices.Contains(p.Compatible, d.Compatible):
		return who("it is for %s, this is %s", strings.Join(p.Compatible, ", "), d.Compatible)
	case !slices.Contains(p.Devices, d.ID) && !slices.ContainsFunc(d.Groups, func(g string) bool { return slices.Contains(p.Groups, g) }):
		return who("it is for other devices than %q, and for none of its groups %q", d.ID, d.Groups)
	case sequence < p.First || sequence > p.Last:
		return who("it is for sequences %d to %d, the release has %d", p.First, p.Last, sequence)
	case now.After(p.Expires):
		return who("it ended at %s, and it is at least %s now", p.Expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// Verified is a permit whose signatures were checked.
type Verified struct {
	*Permit
	// Digest is that of what was signed: a policy can deny it.
	Digest bundle.Digest
	KeyIDs []string
}

// Verify checks the file of a permit. The policy is asked for [Class], of the time
// that the permit was issued. notBefore is the earliest time that it can be now,
// zero if nothing is known of it.
func Verify(envelope []byte, policy *sign.Policy, notBefore time.Time) (*Verified, error) {
	if len(envelope) > MaxEnvelope {
		return nil, fmt.Errorf("verify permit: %w: %d bytes, at most %d", ErrMalformed, len(envelope), MaxEnvelope)
	}
	var p *Permit
	trusted, err := policy.Verify(envelope, PayloadType, notBefore, func(payload []byte) (claims sign.Claims, err error) {
		if p, err = Parse(payload); err != nil {
			return claims, err
		}
		return sign.Claims{Created: p.Issued, Classes: []string{Class}}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("verify permit: %w", err)
	}
	return &Verified{Permit: p, Digest: bundle.Sum(trusted.Payload), KeyIDs: trusted.KeyIDs}, nil
}

// Parse reads a permit that obeys every rule of the format. It must only see bytes
// whose signature was verified; [Verify] does that.
func Parse(b []byte) (*Permit, error) {
	if len(b) > MaxEnvelope {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(b), MaxEnvelope)
	}
	p := new(Permit)
	err := canonical.Unmarshal(b, p)
	if err == nil {
		err = p.validate()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	return p, nil
}

// Seal signs a permit: the bytes of the file. It is no method, because those of a
// type that is decoded are linked into a device, which makes none.
func Seal(p *Permit, signers ...sign.Signer) ([]byte, error) {
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("write permit: %v", err)
	}
	payload, err := canonical.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write permit: %w", err)
	}
	b, err := sign.Seal(PayloadType, payload, signers...)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxEnvelope {
		return nil, fmt.Errorf("write permit: %d bytes, at most %d; name fewer devices", len(b), MaxEnvelope)
	}
	return b, nil
}

func (p *Permit) validate() error {
	if p.Format != Format {
		return fmt.Errorf("format %d, this program reads %d; update it first", p.Format, Format)
	}
	if b, err := hex.DecodeString(p.ID); err != nil || len(b) != idSize || strings.ToLower(p.ID) != p.ID {
		return fmt.Errorf("id %.80q: want %d lower-case hex digits", p.ID, 2*idSize)
	}
	if err := bundle.CheckCompatible(p.Compatible); err != nil {
		return err
	}
	if len(p.Devices)+len(p.Groups) == 0 {
		return errors.New("it is for nobody: name devices or groups")
	}
	for _, list := range []struct {
		what  string
		names []string
	}{{"devices", p.Devices}, {"groups", p.Groups}} {
		if len(list.names) > MaxNames {
			return fmt.Errorf("%d %s, at most %d", len(list.names), list.what, MaxNames)
		}
		seen := make(map[string]bool, len(list.names))
		for _, name := range list.names {
			if err := CheckName(name); err != nil {
				return fmt.Errorf("%s: %w", list.what, err)
			}
			if seen[name] {
				return fmt.Errorf("%s: %s is there twice", list.what, name)
			}
			seen[name] = true
		}
	}
	if p.First > p.Last {
		return fmt.Errorf("first is %d, and last %d", p.First, p.Last)
	}
	return bundle.CheckPeriod(p.Issued, p.Expires)
}

// CheckName checks the id of a device, or the name of a group.
func CheckName(s string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-"
	if s == "" || len(s) > maxName || strings.Trim(s, allowed) != "" {
		return fmt.Errorf("%.80q: want letters, digits, dot, dash, colon and underscore, at most %d", s, maxName)
	}
	return nil
}
