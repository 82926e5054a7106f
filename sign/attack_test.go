// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
)

// edit changes an envelope and writes it in canonical form again, as an
// attacker would who knows the format but has no key.
func edit(t testing.TB, b []byte, change func(e *envelope)) []byte {
	t.Helper()
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	change(&e)
	out, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAttacks(t *testing.T) {
	alice, alicePub := newPair(t, ECDSAP256)
	bob, bobPub := newPair(t, Ed25519)
	mallory, _ := newPair(t, ECDSAP256)
	ring := newKeyring(t, alicePub, bobPub)
	seal := func(payloadType string, s ...Signer) []byte {
		b, err := Seal(payloadType, []byte(`{"version":"1"}`), s...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	byAlice, byBoth := seal(testType, alice), seal(testType, alice, bob)
	otherPayload := base64.StdEncoding.EncodeToString([]byte(`{"version":"2"}`))

	for _, tc := range []struct {
		name      string
		env       []byte
		threshold int
		want      error // nil: accepted
	}{
		{"honest, one key", byAlice, 1, nil},
		{"honest, two keys", byBoth, 2, nil},
		{"signed by unknown key", seal(testType, mallory), 1, ErrUntrusted},
		{"unknown key that claims to be alice", edit(t, seal(testType, mallory), func(e *envelope) { e.Signatures[0].KeyID = alice.KeyID() }), 1, ErrUntrusted},
		{"unknown key first, known key second", seal(testType, mallory, alice), 1, nil},
		{"unknown key does not count", seal(testType, mallory, alice), 2, ErrUntrusted},
		{"one of two", byAlice, 2, ErrUntrusted},
		{"same signature twice", edit(t, byAlice, func(e *envelope) { e.Signatures = append(e.Signatures, e.Signatures[0]) }), 2, ErrUntrusted},
		{"same signature under bob's id", edit(t, byAlice, func(e *envelope) {
			e.Signatures = append(e.Signatures, wireSignature{KeyID: bob.KeyID(), Sig: e.Signatures[0].Sig})
		}), 2, ErrUntrusted},
		{"threshold met twice by one key", edit(t, byAlice, func(e *envelope) {
			var other envelope
			if err := json.Unmarshal(seal(testType, alice), &other); err != nil {
				t.Fatal(err)
			}
			e.Signatures = append(e.Signatures, wireSignature{Sig: other.Signatures[0].Sig})
		}), 2, ErrUntrusted},
		{"threshold above the keyring", byBoth, 3, ErrUntrusted},
		{"no key id hint", edit(t, byBoth, func(e *envelope) { e.Signatures[0].KeyID, e.Signatures[1].KeyID = "", "" }), 2, nil},
		{"wrong key id hints", edit(t, byBoth, func(e *envelope) {
			e.Signatures[0].KeyID, e.Signatures[1].KeyID = e.Signatures[1].KeyID, "SHA256:nonsense"
		}), 2, nil},
		{"payload of another type", seal("application/vnd.example.other+json", alice), 1, ErrPayloadType},
		{"payload type confusion", edit(t, seal("application/vnd.example.other+json", alice), func(e *envelope) { e.PayloadType = testType }), 1, ErrUntrusted},
		{"type in another case", edit(t, byAlice, func(e *envelope) { e.PayloadType = strings.ToUpper(testType) }), 1, ErrPayloadType},
		{"no type", edit(t, byAlice, func(e *envelope) { e.PayloadType = "" }), 1, ErrMalformed},
		{"tampered payload", edit(t, byAlice, func(e *envelope) { e.Payload = otherPayload }), 1, ErrUntrusted},
		{"payload in the URL alphabet", edit(t, byAlice, func(e *envelope) { e.Payload = base64.URLEncoding.EncodeToString([]byte{0xff, 0xfe}) }), 1, ErrMalformed},
		{"payload with a line break", edit(t, byAlice, func(e *envelope) { e.Payload = e.Payload[:4] + "\n" + e.Payload[4:] }), 1, ErrMalformed},
		{"payload without padding", edit(t, byAlice, func(e *envelope) { e.Payload = "eQ" }), 1, ErrMalformed},
		{"stray bits in the base64", edit(t, byAlice, func(e *envelope) { e.Payload = "eR==" }), 1, ErrMalformed},
		{"no signatures", edit(t, byAlice, func(e *envelope) { e.Signatures = []wireSignature{} }), 1, ErrMalformed},
		{"null signatures", edit(t, byAlice, func(e *envelope) { e.Signatures = nil }), 1, ErrMalformed},
		{"empty signature", edit(t, byAlice, func(e *envelope) { e.Signatures[0].Sig = "" }), 1, ErrMalformed},
		{"garbage signature", edit(t, byAlice, func(e *envelope) { e.Signatures[0].Sig = "AAAA" }), 1, ErrUntrusted},
		{"one garbage signature beside a good one", edit(t, byAlice, func(e *envelope) {
			e.Signatures = append([]wireSignature{{Sig: "AAAA"}}, e.Signatures...)
		}), 1, nil},
		{"too many signatures", edit(t, byAlice, func(e *envelope) {
			for len(e.Signatures) <= MaxSignatures {
				e.Signatures = append(e.Signatures, e.Signatures[0])
			}
		}), 1, ErrMalformed},
		{"a flood of empty signatures", []byte(`{"payloadType":"` + testType + `","payload":"","signatures":[` + strings.Repeat("{},", 300_000) + `{}]}`), 1, ErrMalformed},
		{"oversized envelope", edit(t, byAlice, func(e *envelope) { e.Payload = strings.Repeat("AAAA", MaxEnvelope/4) }), 1, ErrMalformed},
		{"trailing byte", append(bytes.Clone(byAlice), 'x'), 1, ErrMalformed},
		{"trailing line feed", append(bytes.Clone(byAlice), '\n'), 1, ErrMalformed},
		{"trailing zero", append(bytes.Clone(byAlice), 0), 1, ErrMalformed},
		{"two envelopes", append(bytes.Clone(byAlice), byAlice...), 1, ErrMalformed},
		{"leading space", append([]byte(" "), byAlice...), 1, ErrMalformed},
		{"truncated", byAlice[:len(byAlice)-1], 1, ErrMalformed},
		{"empty", nil, 1, ErrMalformed},
		{"null", []byte("null"), 1, ErrMalformed},
		{"array", []byte("[]"), 1, ErrMalformed},
		{"deep nesting", []byte(strings.Repeat("[", MaxEnvelope)), 1, ErrMalformed},
		{"unknown member", bytes.Replace(byAlice, []byte(`{`), []byte(`{"extra":1,`), 1), 1, ErrMalformed},
		{"unknown member in a signature", bytes.Replace(byAlice, []byte(`[{`), []byte(`[{"extra":1,`), 1), 1, ErrMalformed},
		{"repeated member", bytes.Replace(byAlice, []byte(`{`), []byte(`{"payload":"eQ==",`), 1), 1, ErrMalformed},
		{"case-folded member", bytes.Replace(byAlice, []byte(`"payload"`), []byte(`"Payload"`), 1), 1, ErrMalformed},
		{"escaped member name", bytes.Replace(byAlice, []byte(`"payload"`), []byte(`"\u0070ayload"`), 1), 1, ErrMalformed},
		{"null key id", bytes.Replace(byAlice, []byte(`"`+alice.KeyID()+`"`), []byte(`null`), 1), 1, ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, err := ring.Verify(tc.env, testType, tc.threshold)
			if tc.want == nil {
				if err != nil || len(v.KeyIDs) < tc.threshold || string(v.Payload) != `{"version":"1"}` {
					t.Fatalf("Verify = %+v, %v; want success", v, err)
				}
				return
			}
			if !errors.Is(err, tc.want) || v != nil {
				t.Fatalf("Verify = %+v, %v; want nil and %v", v, err, tc.want)
			}
		})
	}
}

func TestVerifyRefusesAnswersToNoQuestion(t *testing.T) {
	alice, pub := newPair(t, Ed25519)
	ring := newKeyring(t, pub)
	env, err := Seal(testType, []byte("x"), alice)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() (*Verified, error){
		"threshold 0":    func() (*Verified, error) { return ring.Verify(env, testType, 0) },
		"threshold -1":   func() (*Verified, error) { return ring.Verify(env, testType, -1) },
		"any type":       func() (*Verified, error) { return ring.Verify(env, "", 1) },
		"nil keyring":    func() (*Verified, error) { return (*Keyring)(nil).Verify(env, testType, 1) },
		"empty keyring":  func() (*Verified, error) { return new(Keyring).Verify(env, testType, 1) },
		"nothing at all": func() (*Verified, error) { return ring.Verify(nil, testType, 1) },
	} {
		if v, err := f(); err == nil || v != nil {
			t.Errorf("%s: Verify = %+v, %v; want nil and an error", name, v, err)
		}
	}
}

// TestOpenSSLVector verifies signatures that were made without this package.
func TestOpenSSLVector(t *testing.T) {
	ring, err := LoadKeyring(keyDir(t, "openssl-p256.pub", "openssl-ed25519.pub"))
	if err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile("testdata/openssl.envelope.json")
	if err != nil {
		t.Fatal(err)
	}
	v, err := ring.Verify(env, testType, 2)
	if err != nil || string(v.Payload) != "{\"made\":\"with openssl\"}\n" {
		t.Fatalf("Verify = %+v, %v", v, err)
	}
}

// FuzzVerify feeds mutations of honest envelopes. What verifies holds exactly
// what was signed; what does not, yields nothing; what parses, is written the
// same way again.
func FuzzVerify(f *testing.F) {
	ring, err := LoadKeyring(keyDir(f, "openssl-p256.pub", "openssl-ed25519.pub"))
	if err != nil {
		f.Fatal(err)
	}
	honest, err := os.ReadFile("testdata/openssl.envelope.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(honest)
	f.Add(edit(f, honest, func(e *envelope) { e.Signatures = e.Signatures[:1] }))
	f.Add([]byte(`{"payloadType":"a","payload":"","signatures":[{"keyid":"","sig":"AAAA"}]}`))
	l := newLog(f, Ed25519)
	l.Fill(3)
	f.Add(withEntry(f, honest, entryOf(l, 1)))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ring.Verify(b, testType, 1)
		switch {
		case err != nil && v != nil:
			t.Fatalf("an error and a result: %v", err)
		case err == nil && string(v.Payload) != "{\"made\":\"with openssl\"}\n":
			t.Fatalf("verified what nobody signed: %q", v.Payload)
		}
		env, err := parse(b)
		if err != nil {
			if env != nil {
				t.Fatal("an error and an envelope")
			}
			return
		}
		if again, err := env.marshal(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("parsed %q, wrote %q, %v", b, again, err)
		}
	})
}
