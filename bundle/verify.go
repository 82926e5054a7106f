// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"

	"github.com/updaterd/updaterd/sign"
)

// Verified is a manifest whose signatures were checked.
type Verified struct {
	Manifest *Manifest
	// Digest is that of the manifest's bytes. It identifies the release: a
	// bundle that is signed again keeps it.
	Digest Digest
	// KeyIDs are the keys of the keyring that signed it.
	KeyIDs []string
	// PayloadOffset is where the payload begins in the file, and PayloadSize
	// its length; the file ends there.
	PayloadOffset, PayloadSize int64
}

// Verify checks the head of a bundle, which is exactly its header and its
// envelope, and returns the manifest if at least threshold different keys of
// the keyring signed it.
func Verify(head []byte, keyring *sign.Keyring, threshold int) (*Verified, error) {
	envelope, err := splitHead(head)
	if err != nil {
		return nil, err
	}
	trusted, err := keyring.Verify(envelope, PayloadType, threshold)
	if err != nil {
		return nil, fmt.Errorf("verify bundle: %w", err)
	}
	m, err := ParseManifest(trusted.Payload)
	if err != nil {
		return nil, err
	}
	return &Verified{
		Manifest:      m,
		Digest:        Sum(trusted.Payload),
		KeyIDs:        trusted.KeyIDs,
		PayloadOffset: int64(len(head)),
		PayloadSize:   m.PayloadSize(),
	}, nil
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
