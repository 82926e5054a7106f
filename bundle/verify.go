// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"time"

	"github.com/updaterd/updaterd/sign"
)

// Verified is a manifest whose signatures were checked.
type Verified struct {
	Manifest *Manifest
	// Digest is that of the manifest's bytes. It identifies the release: a
	// bundle that is signed again keeps it.
	Digest Digest
	// KeyIDs are the keys that signed it and count.
	KeyIDs []string
	// Timely tells that the manifest's time is to be believed; see [sign.Verified].
	Timely bool
	// Entries tells where logs of the policy keep the signatures of those keys.
	Entries []sign.LogEntry
	// PayloadOffset is where the payload begins in the file, and PayloadSize
	// its length; the file ends there.
	PayloadOffset, PayloadSize int64
}

// Verify checks the head of a bundle, which is exactly its header and its
// envelope, and returns the manifest if the policy accepts it: as many keys signed
// it as the rules for its images and its channel ask for. notBefore is the earliest
// time that it can be now, zero if nothing is known of it.
func Verify(head []byte, policy *sign.Policy, notBefore time.Time) (*Verified, error) {
	envelope, err := splitHead(head)
	if err != nil {
		return nil, err
	}
	var m *Manifest
	trusted, err := policy.Verify(envelope, PayloadType, notBefore, func(payload []byte) (claims sign.Claims, err error) {
		if m, err = ParseManifest(payload); err != nil {
			return claims, err
		}
		return m.claims(), nil
	})
	if err != nil {
		return nil, fmt.Errorf("verify bundle: %w", err)
	}
	return &Verified{
		Manifest:      m,
		Digest:        Sum(trusted.Payload),
		KeyIDs:        trusted.KeyIDs,
		Timely:        trusted.Timely,
		Entries:       trusted.Entries,
		PayloadOffset: int64(len(head)),
		PayloadSize:   m.PayloadSize(),
	}, nil
}

// claims is what a policy judges a manifest by.
func (m *Manifest) claims() sign.Claims {
	c := sign.Claims{Created: m.Created, Channel: m.Channel}
	for i := range m.Images {
		c.Classes = append(c.Classes, m.Images[i].Class)
	}
	return c
}

func splitHead(head []byte) (envelope []byte, err error) {
	n, err := ParseHeader(head)
	if err != nil {
		return nil, err
	}
	switch got := len(head) - HeaderSize; {
	case got < n:
		return nil, fmt.Errorf("read envelope: %w: %w: %d bytes, the header says %d", ErrMalformed, ErrTruncated, got, n)
	case got > n:
		return nil, fmt.Errorf("read envelope: %w: %d bytes, the header says %d", ErrMalformed, got, n)
	}
	return head[HeaderSize:], nil
}
