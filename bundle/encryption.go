// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/updaterd/updaterd/bundle/seal"
)

// RequiresEncryption is in Manifest.Requires of a bundle that is encrypted.
const RequiresEncryption = "encryption"

// MaxRecipients bounds whom a bundle is encrypted for: each takes 1.6 KiB of the manifest.
const MaxRecipients = 64

// ErrLocked: the bundle is encrypted for others. Nothing is wrong with it.
var ErrLocked = seal.ErrLocked

// An Encryption says who can read the images' tables and data, each piece of which
// is sealed: docs/encryption.md.
type Encryption struct {
	Scheme     string    `json:"scheme"`
	Recipients []Wrapped `json:"recipients"`
}

// A Wrapped is the content key as one recipient alone can read it.
type Wrapped struct {
	// ID is that of the recipient: seal.Recipient.ID.
	ID  string `json:"id"`
	Key []byte `json:"key"`
}

// Unlock finds the content key with one of the identities. Without it the tables
// of a bundle that is encrypted are ErrLocked. Others need none.
func (m *Manifest) Unlock(ids ...*seal.Identity) error {
	if m.Encryption == nil {
		return nil
	}
	key, err := m.Encryption.open(ids)
	if err != nil {
		return fmt.Errorf("unlock bundle: %w", err)
	}
	m.setKey(key)
	return nil
}

func (m *Manifest) setKey(key *seal.Key) {
	for i := range m.Images {
		m.Images[i].key = key
	}
}

func (e *Encryption) open(ids []*seal.Identity) (*seal.Key, error) {
	var ours []string
	for _, id := range ids {
		mine := id.Recipient().ID()
		for _, w := range e.Recipients {
			if w.ID == mine {
				key, err := id.Unwrap(w.Key)
				if err != nil {
					return nil, fmt.Errorf("%w: %v", ErrContent, err)
				}
				return key, nil
			}
		}
		ours = append(ours, mine)
	}
	if len(ours) == 0 {
		return nil, ErrLocked
	}
	return nil, fmt.Errorf("%w: it is for %d recipients, and %s is none of them; have it built for that one too",
		ErrLocked, len(e.Recipients), strings.Join(ours, ", "))
}

func (m *Manifest) validateEncryption() error {
	encrypted := false
	for i, feature := range m.Requires {
		if feature != RequiresEncryption || i > 0 {
			return fmt.Errorf("requires the feature %.64q, which this program does not know; update it first", feature)
		}
		encrypted = true
	}
	if encrypted != (m.Encryption != nil) {
		return fmt.Errorf("the feature %q and the key \"encryption\" go together", RequiresEncryption)
	}
	if !encrypted {
		return nil
	}
	if s := m.Encryption.Scheme; s != seal.Scheme {
		return fmt.Errorf("encrypted by scheme %.64q, this program reads %q; update it first", s, seal.Scheme)
	}
	n := len(m.Encryption.Recipients)
	if n == 0 || n > MaxRecipients {
		return fmt.Errorf("%d recipients, want 1 to %d", n, MaxRecipients)
	}
	known := make(map[string]bool)
	for _, w := range m.Encryption.Recipients {
		if id, err := hex.DecodeString(w.ID); err != nil || len(id) != DigestSize || strings.ToLower(w.ID) != w.ID {
			return fmt.Errorf("recipient %.80q: want %d lower-case hex digits", w.ID, 2*DigestSize)
		}
		if len(w.Key) != seal.WrappedSize {
			return fmt.Errorf("recipient %s: wrapped key of %d bytes, want %d", w.ID, len(w.Key), seal.WrappedSize)
		}
		if known[w.ID] {
			return fmt.Errorf("recipient %s is there twice", w.ID)
		}
		known[w.ID] = true
	}
	return nil
}

// overhead is how much longer each piece of the payload is than what it holds.
func (m *Manifest) overhead() int64 {
	if m.Encryption == nil {
		return 0
	}
	return seal.Overhead
}

// overhead is that of the manifest.
func (img *Image) overhead() int {
	if img.key == nil {
		return 0
	}
	return seal.Overhead
}

// Encrypted tells whether the image's tables and data are sealed.
func (img *Image) Encrypted() bool { return img.key != nil }

// MaxEncoded is the length of the longest encoded chunk or frame that there can be.
func (img *Image) MaxEncoded() int64 { return img.ChunkSize + int64(img.overhead()) }

// open compares a table with its digest and returns what is in it: b itself, unless
// it is sealed, and then dst with that appended.
func (img *Image) open(t Table, b, dst []byte) ([]byte, error) {
	if err := t.check(b); err != nil || img.key == nil {
		return b, err
	}
	return img.key.Open(dst, b, t.Offset)
}
