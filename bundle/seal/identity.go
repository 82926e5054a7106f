// SPDX-License-Identifier: Apache-2.0

package seal

import (
	"bytes"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
)

// The types of the PEM blocks in files.
const (
	identityBlock  = "UPDATERD IDENTITY"
	recipientBlock = "UPDATERD RECIPIENT"
)

const (
	// seedSize and publicSize are the lengths of an X-Wing private and public key.
	seedSize   = 32
	publicSize = 1184 + 32
	// maxFile bounds a file of either.
	maxFile = 8 << 10
)

// An Identity is the private half: whoever has it reads what is sealed for its recipient.
type Identity struct{ key hpke.PrivateKey }

// A Recipient is the public half: whom a bundle is for.
type Recipient struct{ key hpke.PublicKey }

// NewIdentity makes an identity.
func NewIdentity() (*Identity, error) {
	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	return &Identity{key}, nil
}

// Recipient is the public half.
func (id *Identity) Recipient() *Recipient { return &Recipient{id.key.PublicKey()} }

// MarshalIdentity returns the text of an identity file, a secret.
func MarshalIdentity(id *Identity) ([]byte, error) {
	seed, err := id.key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("write identity: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: identityBlock, Bytes: seed}), nil
}

// ID is the SHA-256 of the public key, as hex digits.
func (r *Recipient) ID() string {
	sum := sha256.Sum256(r.key.Bytes())
	return hex.EncodeToString(sum[:])
}

// MarshalRecipient returns the text of a recipient file.
func MarshalRecipient(r *Recipient) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: recipientBlock, Bytes: r.key.Bytes()})
}

// ParseIdentity reads what MarshalIdentity writes. Its errors say nothing of the
// content, which is a secret.
func ParseIdentity(b []byte) (*Identity, error) {
	seed, err := decode(b, identityBlock, seedSize)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	key, err := hpke.MLKEM768X25519().NewPrivateKey(seed)
	if err != nil {
		return nil, errors.New("read identity: it is no private key of ML-KEM-768 and X25519")
	}
	return &Identity{key}, nil
}

// ParseRecipient reads what MarshalRecipient writes.
func ParseRecipient(b []byte) (*Recipient, error) {
	public, err := decode(b, recipientBlock, publicSize)
	if err != nil {
		return nil, fmt.Errorf("read recipient: %w", err)
	}
	key, err := hpke.MLKEM768X25519().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("read recipient: %w", err)
	}
	return &Recipient{key}, nil
}

// decode reads the only PEM block of a file.
func decode(b []byte, want string, size int) ([]byte, error) {
	block, rest := pem.Decode(b)
	switch {
	case block == nil:
		return nil, fmt.Errorf("there is no PEM block %q", want)
	case block.Type != want:
		return nil, fmt.Errorf("PEM block %.40q, want %q", block.Type, want)
	case len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("there is more than one PEM block without headers")
	case len(block.Bytes) != size:
		return nil, fmt.Errorf("%d bytes, want %d", len(block.Bytes), size)
	}
	return block.Bytes, nil
}

// LoadIdentity reads an identity from a file that nobody but its owner may read.
func LoadIdentity(path string) (*Identity, error) {
	b, err := read(path, 0o077)
	if err != nil {
		return nil, err
	}
	id, err := ParseIdentity(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return id, nil
}

// LoadRecipient reads a recipient from a file.
func LoadRecipient(path string) (*Recipient, error) {
	b, err := read(path, 0)
	if err != nil {
		return nil, err
	}
	r, err := ParseRecipient(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// read reads a file whose mode has none of the forbidden bits.
func read(path string, forbidden os.FileMode) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		return nil, fmt.Errorf("%s has mode %04o: others than its owner can use it; run chmod 600 %s", path, mode, path)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}
