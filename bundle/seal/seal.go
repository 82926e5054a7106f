// SPDX-License-Identifier: Apache-2.0

package seal

import (
	"crypto/cipher"
	"crypto/hpke"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// Scheme names all that this package does, in manifests.
const Scheme = "xwing-chacha20poly1305"

const (
	// Overhead is how much longer a sealed piece is than what it holds.
	Overhead = chacha20poly1305.Overhead
	// WrappedSize is the length of a wrapped content key: the encapsulated key of
	// ML-KEM-768 (1088 bytes) and of X25519 (32), the content key, and a tag.
	WrappedSize = 1088 + 32 + chacha20poly1305.KeySize + chacha20poly1305.Overhead
)

// purpose is the info of HPKE: what else the same recipient may be sent is no
// content key.
const purpose = "updaterd bundle content key v1"

var (
	// ErrLocked: there is no content key to open a piece with.
	ErrLocked = errors.New("the bundle is encrypted, and no identity was given that it is for")
	// ErrSealed: a piece was not sealed with this key, or not for this place.
	ErrSealed = errors.New("a sealed piece does not open")
)

// A Key is the content key of a bundle. The zero value is locked: it opens nothing.
// A Key is safe for concurrent use.
type Key struct {
	secret []byte
	aead   cipher.AEAD
}

// NewKey makes a content key. It is for one payload: a second one would use its
// nonces again.
func NewKey() *Key {
	secret := make([]byte, chacha20poly1305.KeySize)
	rand.Read(secret) // does not fail
	return keyOf(secret)
}

func keyOf(secret []byte) *Key {
	aead, err := chacha20poly1305.New(secret)
	if err != nil {
		panic(err) // its length is the only thing that can be wrong with it
	}
	return &Key{secret, aead}
}

// Wrap returns the key as one recipient alone can read it, WrappedSize bytes. What
// only a builder does is no method: a device's program would have all of those in it.
func Wrap(k *Key, to *Recipient) ([]byte, error) {
	b, err := hpke.Seal(to.key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(purpose), k.secret)
	if err != nil {
		return nil, fmt.Errorf("wrap the content key for recipient %s: %w", to.ID(), err)
	}
	return b, nil
}

// Unwrap reads what Wrap wrote.
func (id *Identity) Unwrap(wrapped []byte) (*Key, error) {
	secret, err := hpke.Open(id.key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(purpose), wrapped)
	if err == nil && len(secret) != chacha20poly1305.KeySize {
		err = fmt.Errorf("it has %d bytes, want %d", len(secret), chacha20poly1305.KeySize)
	}
	if err != nil {
		return nil, fmt.Errorf("unwrap the content key: %w", err)
	}
	return keyOf(secret), nil
}

// Seal appends the sealed piece to dst; at is where the sealed piece begins in the
// payload. No two pieces of a payload begin at the same place.
func Seal(k *Key, dst, piece []byte, at int64) []byte {
	return k.aead.Seal(dst, nonce(at), piece, nil)
}

// Open appends what a sealed piece holds to dst, which may be sealed[:0].
func (k *Key) Open(dst, sealed []byte, at int64) ([]byte, error) {
	if k.aead == nil {
		return nil, ErrLocked
	}
	b, err := k.aead.Open(dst, nonce(at), sealed, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %d bytes at payload offset %d", ErrSealed, len(sealed), at)
	}
	return b, nil
}

// nonce is the place in the payload, 64 bits, little endian, and zeros.
func nonce(at int64) []byte {
	b := make([]byte, chacha20poly1305.NonceSize)
	binary.LittleEndian.PutUint64(b, uint64(at))
	return b
}
