// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/dsse"
)

// MaxKeys bounds a keyring, so that a hostile envelope costs at most
// MaxSignatures x MaxKeys verifications.
const MaxKeys = 32

// A Keyring is the set of public keys that are believed. The zero value and nil
// believe nobody. It may be used by several goroutines.
type Keyring struct {
	keys []trustedKey // sorted by id
}

type trustedKey struct {
	id       string
	verifier signature.Verifier
}

// NewKeyring makes a keyring of the given keys; the same key twice counts once.
func NewKeyring(pubs ...crypto.PublicKey) (*Keyring, error) {
	k := &Keyring{}
	for _, pub := range pubs {
		if err := k.add(pub); err != nil {
			return nil, fmt.Errorf("make keyring: %w", err)
		}
	}
	if len(k.keys) == 0 {
		return nil, fmt.Errorf("make keyring: %w: no public keys", ErrKey)
	}
	return k, nil
}

// LoadKeyring reads the public keys *.pem and *.pub of a directory. It fails
// closed: one file that cannot be read or is not a public key, any private key
// in the directory, or no key at all is an error.
func LoadKeyring(dir string) (*Keyring, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("load keyring: %w", err)
	}
	k := &Keyring{}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if err := k.load(path); err != nil {
			return nil, fmt.Errorf("load keyring: %s: %w", path, err)
		}
	}
	if len(k.keys) == 0 {
		return nil, fmt.Errorf("load keyring: %w: no *.pem or *.pub file in %s", ErrKey, dir)
	}
	return k, nil
}

// load takes up one directory entry. Symbolic links are followed.
func (k *Keyring) load(path string) error {
	wanted := strings.HasSuffix(path, ".pem") || strings.HasSuffix(path, ".pub")
	info, err := os.Stat(path)
	switch {
	case err != nil && wanted:
		return err
	case err != nil, !info.Mode().IsRegular() && !wanted:
		return nil
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: not a regular file", ErrKey)
	case info.Size() > maxKeyFile && !wanted:
		return nil
	}
	b, err := readSmall(path)
	if err != nil {
		return err
	}
	if bytes.Contains(b, []byte("PRIVATE KEY-----")) {
		return fmt.Errorf("%w: a private key; it has no place on a device: take it away and consider it stolen", ErrKey)
	}
	if !wanted {
		return nil
	}
	pub, err := ParsePublicKey(b)
	if err != nil {
		return err
	}
	return k.add(pub)
}

func (k *Keyring) add(pub crypto.PublicKey) error {
	id, err := KeyID(pub)
	if err != nil {
		return err
	}
	at, found := slices.BinarySearchFunc(k.keys, id, func(t trustedKey, id string) int { return strings.Compare(t.id, id) })
	if found {
		return nil
	}
	if len(k.keys) == MaxKeys {
		return fmt.Errorf("%w: more than %d public keys", ErrKey, MaxKeys)
	}
	verifier, err := signature.LoadVerifier(pub, crypto.SHA256)
	if err != nil {
		return fmt.Errorf("%w: %v", ErrKey, err)
	}
	k.keys = slices.Insert(k.keys, at, trustedKey{id: id, verifier: verifier})
	return nil
}

// KeyIDs lists the keys of the keyring, sorted.
func (k *Keyring) KeyIDs() []string {
	if k == nil {
		return nil
	}
	ids := make([]string, 0, len(k.keys))
	for _, key := range k.keys {
		ids = append(ids, key.id)
	}
	return ids
}

// Verified is what an envelope holds, and who says so.
type Verified struct {
	// Payload is exactly what was signed.
	Payload []byte
	// KeyIDs names the keys of the keyring that signed it: distinct and sorted.
	KeyIDs []string
}

// Verify takes the payload out of an envelope, provided that at least threshold
// different keys of the keyring signed it under payloadType. Signatures by
// unknown keys are passed over: they may be meant for others.
func (k *Keyring) Verify(envelope []byte, payloadType string, threshold int) (*Verified, error) {
	if threshold < 1 {
		return nil, fmt.Errorf("verify envelope: threshold is %d, it must be at least 1", threshold)
	}
	if payloadType == "" { // to the DSSE verifier this would mean: any
		return nil, fmt.Errorf("verify envelope: no payload type was asked for")
	}
	env, err := parse(envelope)
	if err != nil {
		return nil, fmt.Errorf("verify envelope: %w", err)
	}
	if env.PayloadType != payloadType {
		return nil, fmt.Errorf("verify envelope: %w: %q, want %q", ErrPayloadType, env.PayloadType, payloadType)
	}
	if k == nil || len(k.keys) < threshold {
		return nil, fmt.Errorf("verify envelope: %w: threshold %d, but the keyring has only %d keys", ErrUntrusted, threshold, len(k.KeyIDs()))
	}
	result := &Verified{}
	for _, s := range env.Signatures {
		id, payload, err := k.whose(env, s, payloadType, result.KeyIDs)
		if err != nil {
			return nil, fmt.Errorf("verify envelope: %w", err)
		}
		if id != "" {
			result.KeyIDs = append(result.KeyIDs, id)
			result.Payload = payload
		}
	}
	if len(result.KeyIDs) < threshold {
		return nil, fmt.Errorf("verify envelope: %w: signed by %d of the %d keys in the keyring, need %d",
			ErrUntrusted, len(result.KeyIDs), len(k.keys), threshold)
	}
	slices.Sort(result.KeyIDs)
	return result, nil
}

// whose finds the key, not yet counted, that made the signature s; "" if there is none.
func (k *Keyring) whose(env *envelope, s wireSignature, payloadType string, counted []string) (string, []byte, error) {
	single, err := env.single(s)
	if err != nil {
		return "", nil, err
	}
	for _, key := range k.hintedFirst(s.KeyID) {
		if slices.Contains(counted, key.id) {
			continue
		}
		var payload []byte
		verifier := dsse.WrapVerifier(key.verifier, dsse.WithExpectedPayloadType(payloadType), dsse.WithDecodedPayload(&payload))
		if verifier.VerifySignature(bytes.NewReader(single), nil) == nil {
			return key.id, payload, nil
		}
	}
	return "", nil, nil
}

// hintedFirst orders the keys by the unproven hint, to save work, and leaves none out.
func (k *Keyring) hintedFirst(hint string) []trustedKey {
	at := slices.IndexFunc(k.keys, func(t trustedKey) bool { return t.id == hint })
	if at <= 0 {
		return k.keys
	}
	ordered := append([]trustedKey{k.keys[at]}, k.keys[:at]...)
	return append(ordered, k.keys[at+1:]...)
}
