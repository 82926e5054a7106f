// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"fmt"
	"slices"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Unverified takes the payload out of an envelope that nobody has verified, and
// tells how many signatures there are: it need not have one. It is for showing to
// a person who is to sign, and for nothing else.
func Unverified(envelope []byte, payloadType string) (payload []byte, signatures int, err error) {
	env, payload, err := reopen(envelope, payloadType)
	if err != nil {
		return nil, 0, fmt.Errorf("read envelope: %w", err)
	}
	return payload, len(env.Signatures), nil
}

// Attach puts the signatures of signed, an envelope of the same payload that was
// signed elsewhere, into the envelope old. The payload and the other signatures
// stay as they are; an older signature by the same key is replaced. Nothing is
// verified but that the payloads are the same: [Policy.Verify] does the rest.
func Attach(old []byte, payloadType string, signed []byte) ([]byte, error) {
	env, payload, err := reopen(old, payloadType)
	if err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	from, content, err := reopen(signed, payloadType)
	switch {
	case err != nil:
		return nil, fmt.Errorf("signed envelope: %w", err)
	case !bytes.Equal(content, payload):
		return nil, fmt.Errorf("signed envelope: %w: something else was signed there", ErrMalformed)
	case len(from.Signatures) == 0:
		return nil, fmt.Errorf("signed envelope: %w: it has no signatures", ErrMalformed)
	}
	for _, s := range from.Signatures {
		env.put(s)
	}
	return env.marshal()
}

// ToBeSigned is what a signature is over: DSSE's pre-authentication encoding of
// the type and the payload. It is for signers that know nothing of envelopes.
func ToBeSigned(payloadType string, payload []byte) []byte {
	return dsse.PAE(payloadType, payload)
}

// AttachSignature puts a signature over [ToBeSigned] into the envelope old, as
// Attach does: of ECDSA in ASN.1 over its SHA-256, of Ed25519 the 64 bytes. It is
// verified with pub first.
func AttachSignature(old []byte, payloadType string, pub crypto.PublicKey, sig []byte) ([]byte, error) {
	env, payload, err := reopen(old, payloadType)
	if err != nil {
		return nil, fmt.Errorf("detached signature: %w", err)
	}
	id, err := KeyID(pub)
	if err == nil {
		err = checkSignature(pub, id, payloadType, payload, sig)
	}
	if err != nil {
		return nil, fmt.Errorf("detached signature: %w", err)
	}
	env.put(wireSignature{KeyID: id, Sig: base64.StdEncoding.EncodeToString(sig)})
	return env.marshal()
}

func checkSignature(pub crypto.PublicKey, id, payloadType string, payload, sig []byte) error {
	verifier, err := signature.LoadVerifier(pub, crypto.SHA256)
	if err != nil {
		return fmt.Errorf("%w: %v", ErrKey, err)
	}
	if err := verifier.VerifySignature(bytes.NewReader(sig), bytes.NewReader(ToBeSigned(payloadType, payload))); err != nil {
		return fmt.Errorf("%w: key %s did not make this signature over this payload", ErrUntrusted, id)
	}
	return nil
}

// put adds a signature in place of an older one with the same key id. If that is the
// very same, as Ed25519 makes it, what logs have of it stays.
func (e *envelope) put(s wireSignature) {
	e.Signatures = slices.DeleteFunc(e.Signatures, func(w wireSignature) bool {
		if w.KeyID != s.KeyID {
			return false
		}
		if s.Log == nil && w.Sig == s.Sig && slices.Equal(w.Chain, s.Chain) {
			s.Log = w.Log
		}
		return true
	})
	e.Signatures = append(e.Signatures, s)
}
