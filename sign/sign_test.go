// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const testType = "application/vnd.example.test+json"

// newPair makes a signer and its public key.
func newPair(t testing.TB, algorithm string) (Signer, crypto.PublicKey) {
	t.Helper()
	priv, pub, err := GenerateKey(algorithm, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSigner(priv, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return s, p
}

func newKeyring(t testing.TB, pubs ...crypto.PublicKey) *Keyring {
	t.Helper()
	k, err := NewKeyring(pubs...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Verify is that of the policy that believes every key, for a payload that claims nothing.
func (k *Keyring) Verify(envelope []byte, payloadType string, threshold int) (*Verified, error) {
	return k.Policy(threshold).Verify(envelope, payloadType, time.Time{}, nil)
}

func TestWhatIsSealedComesBack(t *testing.T) {
	ec, ecPub := newPair(t, ECDSAP256)
	ed, edPub := newPair(t, Ed25519)
	ring := newKeyring(t, ecPub, edPub)
	rapid.Check(t, func(t *rapid.T) {
		payload := rapid.SliceOfN(rapid.Byte(), 0, 4096).Draw(t, "payload")
		payloadType := rapid.StringMatching(`[ -~é]{1,40}`).Draw(t, "type")
		env, err := Seal(payloadType, payload, ec, ed)
		if err != nil {
			t.Fatal(err)
		}
		v, err := ring.Verify(env, payloadType, 2)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(v.Payload, payload) {
			t.Fatalf("payload = %x; want %x", v.Payload, payload)
		}
		if want := ring.KeyIDs(); !slices.Equal(v.KeyIDs, want) {
			t.Fatalf("KeyIDs = %v; want %v", v.KeyIDs, want)
		}
	})
}

func TestAddAndReplaceKeepThePayload(t *testing.T) {
	a, aPub := newPair(t, ECDSAP256)
	b, bPub := newPair(t, Ed25519)
	payload := []byte(`{"some":"thing"}`)
	first, err := Seal(testType, payload, a)
	if err != nil {
		t.Fatal(err)
	}
	both, err := Add(first, testType, b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Add(both, testType, b)
	if err != nil {
		t.Fatal(err)
	}
	replaced, err := Replace(both, testType, b)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name      string
		env       []byte
		ring      *Keyring
		threshold int
		err       error
	}{
		{"added, both needed", both, newKeyring(t, aPub, bPub), 2, nil},
		{"added twice is there once", again, newKeyring(t, aPub, bPub), 2, nil},
		{"replaced, new key", replaced, newKeyring(t, bPub), 1, nil},
		{"replaced, old key is gone", replaced, newKeyring(t, aPub), 1, ErrUntrusted},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, err := tc.ring.Verify(tc.env, testType, tc.threshold)
			if !errors.Is(err, tc.err) {
				t.Fatalf("Verify = %v; want %v", err, tc.err)
			}
			if err == nil && !bytes.Equal(v.Payload, payload) {
				t.Fatalf("payload = %q", v.Payload)
			}
		})
	}
	if env, _ := parse(again); len(env.Signatures) != 2 {
		t.Errorf("Add twice by one key left %d signatures; want 2", len(env.Signatures))
	}
	if _, err := Add(first, "another/type", b); !errors.Is(err, ErrPayloadType) {
		t.Errorf("Add under another type = %v; want ErrPayloadType", err)
	}
}

func TestSealRefuses(t *testing.T) {
	a, _ := newPair(t, Ed25519)
	for name, f := range map[string]func() ([]byte, error){
		"no signers":                func() ([]byte, error) { return Seal(testType, nil) },
		"no type":                   func() ([]byte, error) { return Seal("", nil, a) },
		"a type that no JSON holds": func() ([]byte, error) { return Seal("\xff", nil, a) },
		"one key twice":             func() ([]byte, error) { return Seal(testType, nil, a, a) },
		"a payload too large":       func() ([]byte, error) { return Seal(testType, make([]byte, MaxEnvelope), a) },
	} {
		if env, err := f(); err == nil || env != nil {
			t.Errorf("Seal with %s = %d bytes, %v; want an error", name, len(env), err)
		}
	}
}
