// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
)

const (
	// MaxKeys bounds a keyring, so that a hostile envelope costs at most
	// MaxSignatures x MaxKeys verifications.
	MaxKeys = 32
	// MaxAuthorities bounds its certificates likewise.
	MaxAuthorities = 8

	// logKeyFile ends the name of a file with the public key of a log. Nobody can
	// take such a key for one that may sign, with a policy or without.
	logKeyFile = ".tlog"
)

// A Keyring is a set of public keys, of certificates of authorities that vouch for
// keys, of their revocation lists, and of keys of transparency logs. Whom of them to believe for what is what a
// [Policy] says. The zero value and nil are empty. It may be used by several
// goroutines.
type Keyring struct {
	keys        []trustedKey // sorted by id
	authorities []*authority
	revocations []*revocations
	files       map[string]member     // by name
	logs        map[string]trustedKey // likewise
}

type trustedKey struct {
	id       string
	verifier signature.Verifier
}

func newTrustedKey(pub crypto.PublicKey) (key trustedKey, err error) {
	if key.id, err = KeyID(pub); err != nil {
		return key, err
	}
	if key.verifier, err = signature.LoadVerifier(pub, crypto.SHA256); err != nil {
		return key, fmt.Errorf("%w: %v", ErrKey, err)
	}
	return key, nil
}

// A member of a keyring is a key, by its id, or an authority.
type member struct {
	key       string
	authority *authority
}

// NewKeyring makes a keyring of the given keys; the same key twice counts once.
func NewKeyring(pubs ...crypto.PublicKey) (*Keyring, error) {
	k := &Keyring{}
	for _, pub := range pubs {
		if _, err := k.add(pub); err != nil {
			return nil, fmt.Errorf("make keyring: %w", err)
		}
	}
	if len(k.keys) == 0 {
		return nil, fmt.Errorf("make keyring: %w: no public keys", ErrKey)
	}
	return k, nil
}

// LoadKeyring reads the public keys and the certificates (*.pem, *.pub, *.crt), the
// revocation lists (*.crl) and the public keys of logs (*.tlog) of a directory. It fails closed: one file that
// cannot be read or is something else, any private key in the directory, or
// neither a key nor a certificate at all is an error.
func LoadKeyring(dir string) (*Keyring, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("load keyring: %w", err)
	}
	k := &Keyring{files: make(map[string]member), logs: make(map[string]trustedKey)}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if err := k.load(path); err != nil {
			return nil, fmt.Errorf("load keyring: %s: %w", path, err)
		}
	}
	if len(k.keys)+len(k.authorities) == 0 {
		return nil, fmt.Errorf("load keyring: %w: no *.pem or *.pub file in %s", ErrKey, dir)
	}
	return k, nil
}

// load takes up one directory entry. Symbolic links are followed.
func (k *Keyring) load(path string) error {
	kind := filepath.Ext(path)
	wanted := slices.Contains([]string{".pem", ".pub", ".crt", ".crl", logKeyFile}, kind)
	limit := int64(maxKeyFile)
	if kind == ".crl" {
		limit = maxCRL
	}
	info, err := os.Stat(path)
	switch {
	case err != nil && wanted:
		return err
	case err != nil, !info.Mode().IsRegular() && !wanted:
		return nil
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: not a regular file", ErrKey)
	case info.Size() > limit && !wanted:
		return nil
	}
	b, err := readSmall(path, limit)
	if err != nil {
		return err
	}
	if bytes.Contains(b, []byte("PRIVATE KEY-----")) {
		return fmt.Errorf("%w: a private key; it has no place on a device: take it away and consider it stolen", ErrKey)
	}
	switch {
	case !wanted:
		return nil
	case kind == ".crl":
		return k.addRevocations(filepath.Base(path), b)
	case kind == logKeyFile:
		return k.addLog(filepath.Base(path), b)
	}
	return k.addFile(filepath.Base(path), b)
}

// addFile takes up a public key or a certificate.
func (k *Keyring) addFile(name string, b []byte) error {
	if block, _ := pem.Decode(b); block != nil && block.Type == certificatePEM {
		block, err := onlyBlock(b)
		if err != nil {
			return err
		}
		a, err := newAuthority(block.Bytes)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(k.authorities, func(o *authority) bool { return o.cert.Equal(a.cert) }); i >= 0 {
			a = k.authorities[i]
		} else if len(k.authorities) == MaxAuthorities {
			return fmt.Errorf("%w: more than %d certificates", ErrKey, MaxAuthorities)
		} else {
			k.authorities = append(k.authorities, a)
		}
		k.files[name] = member{authority: a}
		return nil
	}
	pub, err := ParsePublicKey(b)
	if err != nil {
		return err
	}
	id, err := k.add(pub)
	if err != nil {
		return err
	}
	k.files[name] = member{key: id}
	return nil
}

func (k *Keyring) addRevocations(name string, b []byte) error {
	if len(k.revocations) == maxCRLs {
		return fmt.Errorf("%w: more than %d revocation lists", ErrKey, maxCRLs)
	}
	r, err := parseRevocations(name, b)
	if err != nil {
		return err
	}
	k.revocations = append(k.revocations, r)
	return nil
}

func (k *Keyring) addLog(name string, b []byte) error {
	if len(k.logs) == maxLogs {
		return fmt.Errorf("%w: more than %d keys of logs", ErrKey, maxLogs)
	}
	pub, err := ParsePublicKey(b)
	if err != nil {
		return err
	}
	k.logs[name], err = newTrustedKey(pub)
	return err
}

func (k *Keyring) add(pub crypto.PublicKey) (id string, err error) {
	key, err := newTrustedKey(pub)
	if err != nil {
		return "", err
	}
	at, found := k.find(key.id)
	if found {
		return key.id, nil
	}
	if len(k.keys) == MaxKeys {
		return "", fmt.Errorf("%w: more than %d public keys", ErrKey, MaxKeys)
	}
	k.keys = slices.Insert(k.keys, at, key)
	return key.id, nil
}

func (k *Keyring) find(id string) (int, bool) {
	return slices.BinarySearchFunc(k.keys, id, func(t trustedKey, id string) int { return strings.Compare(t.id, id) })
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

// Authorities lists the subjects of the certificates of the keyring.
func (k *Keyring) Authorities() []string {
	if k == nil {
		return nil
	}
	var names []string
	for _, a := range k.authorities {
		name, _ := subjectOf(a.cert)
		names = append(names, name)
	}
	return names
}

// Policy believes every member of the keyring for everything, if at least
// threshold different keys signed.
func (k *Keyring) Policy(threshold int) *Policy {
	if k == nil {
		k = &Keyring{}
	}
	r := rule{threshold: threshold}
	for _, key := range k.keys {
		r.signers = append(r.signers, party{member: member{key: key.id}})
	}
	for _, a := range k.authorities {
		r.signers = append(r.signers, party{member: member{authority: a}})
	}
	return &Policy{keyring: k, rules: []rule{r}}
}

// hintedFirst orders the keys by the unproven hint, to save work, and leaves none out.
func (k *Keyring) hintedFirst(hint string) []trustedKey {
	at, found := k.find(hint)
	if !found || at == 0 {
		return k.keys
	}
	ordered := append([]trustedKey{k.keys[at]}, k.keys[:at]...)
	return append(ordered, k.keys[at+1:]...)
}
