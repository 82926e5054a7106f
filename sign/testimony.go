// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/dsse"
)

// testimony is what the signatures of an envelope prove.
type testimony struct {
	payload []byte
	marks   []mark
	doubts  []string // about those that prove nothing

	// Once the payload could be read: the time that it claims, and the one that it
	// is at least.
	dated              bool
	created, notBefore time.Time
}

// A mark is a signature of the payload that a key is proven to have made.
type mark struct {
	at       int // of the signature in the envelope
	key      string
	verifier signature.Verifier
	subject  string              // of its certificate, if one came with it
	chain    []*x509.Certificate // nil without
	vouchers []voucher
	entries  []LogEntry // of logs of the policy
}

// A voucher is an authority that the chain of a mark leads to.
type voucher struct {
	authority *authority
	err       error // why not at the time
}

// inspect finds out which keys made the signatures of an envelope.
func (p *Policy) inspect(env *envelope) (*testimony, error) {
	found := &testimony{}
	for i, s := range env.Signatures {
		single, err := env.single(s)
		if err != nil {
			return nil, err
		}
		m, doubt := p.mark(single, s, env.PayloadType, found)
		switch {
		case doubt != "":
			found.doubts = append(found.doubts, fmt.Sprintf("signature %d: %s", i+1, doubt))
		case slices.Contains(p.revoked, m.key):
			found.doubts = append(found.doubts, fmt.Sprintf("key %s is revoked", m.key))
		default:
			m.at = i
			p.keep(m, &env.Signatures[i], env.PayloadType, found)
			found.marks = append(found.marks, *m)
		}
	}
	return found, nil
}

// mark proves one signature, by a key of the keyring or by the certificate that
// came with it.
func (p *Policy) mark(single []byte, s wireSignature, payloadType string, found *testimony) (*mark, string) {
	m := &mark{}
	for _, key := range p.keyring.hintedFirst(s.KeyID) {
		if payload, ok := opened(key.verifier, single, payloadType); ok {
			m.key, m.verifier, found.payload = key.id, key.verifier, payload
			break
		}
	}
	if len(s.Chain) == 0 || len(p.keyring.authorities) == 0 {
		if m.key == "" {
			return nil, strange(s.KeyID)
		}
		return m, ""
	}
	err := p.certify(m, single, s, payloadType, found)
	if m.key == "" {
		return nil, err.Error()
	}
	return m, ""
}

// certify adds to a mark what the certificate that came with it proves.
func (p *Policy) certify(m *mark, single []byte, s wireSignature, payloadType string, found *testimony) error {
	var ders [][]byte
	for _, c := range s.Chain {
		der, err := decode(c)
		if err != nil {
			return err
		}
		ders = append(ders, der)
	}
	chain, err := readChain(ders)
	if err != nil {
		return err
	}
	id, err := KeyID(chain[0].PublicKey)
	if err != nil {
		return err
	}
	if m.key == "" {
		verifier, err := signature.LoadVerifier(chain[0].PublicKey, crypto.SHA256)
		if err != nil {
			return err
		}
		payload, ok := opened(verifier, single, payloadType)
		if !ok {
			return errors.New("it was not made with the key of its certificate")
		}
		m.verifier, found.payload = verifier, payload
	} else if m.key != id {
		return errors.New("its certificate is for another key")
	}
	m.key, m.chain = id, chain
	m.subject, err = subjectOf(chain[0])
	if err != nil {
		return err
	}
	for _, a := range p.keyring.authorities {
		// Ever valid: the time is looked at once the payload may be read.
		if err := a.vouches(chain, a.firstValid(chain)); err != nil {
			found.doubts = append(found.doubts, fmt.Sprintf("the certificate for %s: %v", m.subject, err))
			continue
		}
		if err := p.withdrawn(append(slices.Clone(chain), a.cert)); err != nil {
			found.doubts = append(found.doubts, fmt.Sprintf("the certificate for %s: %v", m.subject, err))
			continue
		}
		m.vouchers = append(m.vouchers, voucher{authority: a})
	}
	return nil
}

// withdrawn tells why a chain, its root included, counts no longer.
func (p *Policy) withdrawn(chain []*x509.Certificate) error {
	for i, c := range chain {
		if id := certificateKeyID(c); slices.Contains(p.revoked, id) {
			return fmt.Errorf("key %s is revoked", id)
		}
		if i == len(chain)-1 {
			break
		}
		for _, r := range p.keyring.revocations {
			if err := r.check(c, chain[i+1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// date judges all certificates by the time that the payload claims, and by the one
// that it is at least.
func (t *testimony) date(created, notBefore time.Time) {
	t.dated, t.created, t.notBefore = true, created, notBefore
	for i := range t.marks {
		m := &t.marks[i]
		for k := range m.vouchers {
			v := &m.vouchers[k]
			switch {
			case created.IsZero():
				v.err = errors.New("what it signed tells no time")
			default:
				v.err = v.authority.vouches(m.chain, created)
			}
			if v.err == nil && notBefore.After(created) {
				v.err = v.authority.vouches(m.chain, notBefore)
			}
		}
	}
}

// opened verifies one signature and returns what it is over.
func opened(v signature.Verifier, single []byte, payloadType string) ([]byte, bool) {
	var payload []byte
	wrapped := dsse.WrapVerifier(v, dsse.WithExpectedPayloadType(payloadType), dsse.WithDecodedPayload(&payload))
	if wrapped.VerifySignature(bytes.NewReader(single), nil) != nil {
		return nil, false
	}
	return payload, true
}

// strange says what to do about a signature that no key here made. Whose it claims
// to be is shown only in the form that a key id has.
func strange(claimed string) string {
	if !isKeyID(claimed) {
		return "no key known here made it"
	}
	return "key " + claimed + " is not known here; if it is a new one, install a release first that brings it and is signed by a key known here"
}
