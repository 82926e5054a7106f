// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/sigstore/sigstore/pkg/signature/dsse"
)

// Seal signs payload under payloadType with every signer.
func Seal(payloadType string, payload []byte, signers ...Signer) ([]byte, error) {
	if err := checkType(payloadType); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
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

func checkType(payloadType string) error {
	if payloadType == "" || !utf8.ValidString(payloadType) {
		return fmt.Errorf("payload type %q is empty or not UTF-8", payloadType)
	}
	return nil
}

// Unsigned is an envelope without a signature. Nobody who verifies accepts it;
// [Add], [Replace] and [Attach] do.
func Unsigned(payloadType string, payload []byte) ([]byte, error) {
	if err := checkType(payloadType); err != nil {
		return nil, fmt.Errorf("make envelope: %w", err)
	}
	e := envelope{PayloadType: payloadType, Payload: base64.StdEncoding.EncodeToString(payload), Signatures: []wireSignature{}}
	return e.marshal()
}

func sealOne(payloadType string, payload []byte, s Signer) (*envelope, error) {
	b, err := dsse.WrapSigner(s, payloadType).SignMessage(bytes.NewReader(payload))
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", s.KeyID(), err)
	}
	var env envelope
	if err := json.Unmarshal(b, &env); err != nil || len(env.Signatures) != 1 {
		return nil, fmt.Errorf("internal error: %d signatures, %v", len(env.Signatures), err)
	}
	made := &env.Signatures[0]
	if err := verifyOwn(payloadType, payload, s, made.Sig); err != nil {
		return nil, fmt.Errorf("key %s: %w", s.KeyID(), err)
	}
	made.KeyID = s.KeyID()
	if c, ok := s.(interface{ Chain() [][]byte }); ok {
		for _, der := range c.Chain() {
			made.Chain = append(made.Chain, base64.StdEncoding.EncodeToString(der))
		}
	}
	return &env, nil
}

// verifyOwn checks what a signer has just made. It may be a token or a service that
// signs in another way than its public key tells, or with another key; better
// found out here than by all devices.
func verifyOwn(payloadType string, payload []byte, s Signer, sig string) error {
	raw, err := decode(sig)
	if err != nil {
		return err
	}
	pub, err := s.PublicKey()
	if err != nil {
		return fmt.Errorf("%w: public half: %v", ErrKey, err)
	}
	return checkSignature(pub, s.KeyID(), payloadType, payload, raw)
}

// Add signs the payload of an envelope once more. The payload and the other
// signatures stay as they are, with what logs have of them; an older signature by
// the same key is replaced. It does not check the other signatures: verify the envelope first, for the
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
	env.put(one.Signatures[0])
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
	env, err := parseUnsigned(old)
	if err != nil {
		return nil, nil, err
	}
	if env.PayloadType != payloadType {
		return nil, nil, fmt.Errorf("%w: %q, want %q", ErrPayloadType, env.PayloadType, payloadType)
	}
	payload, err := decode(env.Payload)
	return env, payload, err
}
