// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/dsse"
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

// Seal signs payload under payloadType with every signer.
func Seal(payloadType string, payload []byte, signers ...Signer) ([]byte, error) {
	if payloadType == "" || !utf8.ValidString(payloadType) {
		return nil, fmt.Errorf("sign: payload type %q is empty or not UTF-8", payloadType)
	}
	if len(signers) == 0 {
		return nil, fmt.Errorf("sign: %w: no private key", ErrKey)
	}
	var sealed *envelope
	for _, s := range signers {
		one, err := sealOne(payloadType, payload, s)
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		if sealed == nil {
			sealed = one
			continue
		}
		if slices.ContainsFunc(sealed.Signatures, func(w wireSignature) bool { return w.KeyID == s.KeyID() }) {
			return nil, fmt.Errorf("sign: %w: key %s is given twice", ErrKey, s.KeyID())
		}
		sealed.Signatures = append(sealed.Signatures, one.Signatures...)
	}
	return sealed.marshal()
}

func sealOne(payloadType string, payload []byte, s Signer) (*envelope, error) {
	b, err := dsse.WrapSigner(s, payloadType).SignMessage(bytes.NewReader(payload))
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", s.KeyID(), err)
	}
	var env envelope
	if err := json.Unmarshal(b, &env); err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	for i := range env.Signatures {
		env.Signatures[i].KeyID = s.KeyID()
		if c, ok := s.(interface{ Chain() [][]byte }); ok {
			for _, der := range c.Chain() {
				env.Signatures[i].Chain = append(env.Signatures[i].Chain, base64.StdEncoding.EncodeToString(der))
			}
		}
	}
	return &env, nil
}

// Add signs the payload of an envelope once more. The payload and the other
// signatures stay as they are; an older signature by the same key is replaced.
// It does not check the other signatures: verify the envelope first, for the
// new signature vouches for whatever is in it.
func Add(old []byte, payloadType string, s Signer) ([]byte, error) {
	env, payload, err := reopen(old, payloadType)
	if err != nil {
		return nil, fmt.Errorf("add signature: %w", err)
	}
	one, err := sealOne(payloadType, payload, s)
	if err != nil {
		return nil, fmt.Errorf("add signature: %w", err)
	}
	env.Signatures = slices.DeleteFunc(env.Signatures, func(w wireSignature) bool { return w.KeyID == s.KeyID() })
	env.Signatures = append(env.Signatures, one.Signatures...)
	return env.marshal()
}

// Replace signs the payload of an envelope anew and drops all signatures that
// it had. As for Add, verify the envelope first.
func Replace(old []byte, payloadType string, signers ...Signer) ([]byte, error) {
	_, payload, err := reopen(old, payloadType)
	if err != nil {
		return nil, fmt.Errorf("replace signatures: %w", err)
	}
	return Seal(payloadType, payload, signers...)
}

func reopen(old []byte, payloadType string) (*envelope, []byte, error) {
	env, err := parse(old)
	if err != nil {
		return nil, nil, err
	}
	if env.PayloadType != payloadType {
		return nil, nil, fmt.Errorf("%w: %q, want %q", ErrPayloadType, env.PayloadType, payloadType)
	}
	payload, err := decode(env.Payload)
	return env, payload, err
}
