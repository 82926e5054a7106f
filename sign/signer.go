// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"context"
	"crypto"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// A Signer holds a private key, or the way to one.
type Signer interface {
	signature.Signer
	KeyID() string
}

type signer struct {
	signature.Signer
	id string
}

func (s *signer) KeyID() string { return s.id }

// NewSigner makes a Signer of a private key in memory.
func NewSigner(private crypto.PrivateKey) (Signer, error) {
	inner, err := signature.LoadSigner(private, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrKey, err)
	}
	pub, err := inner.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrKey, err)
	}
	id, err := KeyID(pub)
	if err != nil {
		return nil, err
	}
	return &signer{Signer: inner, id: id}, nil
}

// LoadSigner opens the key that ref names: the path of a PEM file. pass is
// called only if the key is encrypted; it may be nil.
func LoadSigner(_ context.Context, ref string, pass func() ([]byte, error)) (Signer, error) {
	if scheme, _, found := strings.Cut(ref, "://"); found {
		return nil, fmt.Errorf("load key: %w: %q is no supported kind of key reference; give the path of a PEM file", ErrKey, scheme)
	}
	b, err := readSmall(ref, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	s, err := ParseSigner(b, pass)
	if err != nil {
		return nil, fmt.Errorf("load key %s: %w", ref, err)
	}
	return s, nil
}

// ParseSigner reads a private key in PEM. pass is as in LoadSigner.
func ParseSigner(b []byte, pass func() ([]byte, error)) (Signer, error) {
	block, err := onlyBlock(b)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
		return nil, fmt.Errorf("%w: PEM block of type %q, want a private key", ErrKey, block.Type)
	}
	var passphrase []byte
	encrypted := isEncrypted(block)
	if encrypted {
		if pass == nil {
			return nil, fmt.Errorf("%w needed: the private key is encrypted", ErrPassphrase)
		}
		if passphrase, err = pass(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPassphrase, err)
		}
		if len(passphrase) == 0 {
			return nil, fmt.Errorf("%w is empty", ErrPassphrase)
		}
	}
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(b, cryptoutils.StaticPasswordFunc(passphrase))
	if err != nil && encrypted {
		return nil, fmt.Errorf("%w is wrong, or the file is damaged: %v", ErrPassphrase, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrKey, err)
	}
	return NewSigner(private)
}

// isEncrypted knows PKCS#8's, sigstore's and OpenSSL's older encryption.
func isEncrypted(block *pem.Block) bool {
	return strings.HasPrefix(block.Type, "ENCRYPTED ") || block.Headers["DEK-Info"] != ""
}
