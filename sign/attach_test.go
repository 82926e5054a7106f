// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
)

// Signatures that were made on other machines, over the same payload, make of an
// envelope that nobody accepts one that needs them both.
func TestAttach(t *testing.T) {
	alice, alicePub := newPair(t, ECDSAP256)
	bob, bobPub := newPair(t, Ed25519)
	ring, err := NewKeyring(alicePub, bobPub)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(env []byte) error {
		_, err := ring.Policy(2).Verify(env, testType, time.Time{}, claim(Claims{}))
		return err
	}
	env, err := Unsigned(testType, []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(env); !errors.Is(err, ErrMalformed) {
		t.Errorf("an unsigned envelope: %v", err)
	}
	payload, n, err := Unverified(env, testType)
	if err != nil || n != 0 || string(payload) != "payload" {
		t.Errorf("unsigned: %q, %d signatures, %v", payload, n, err)
	}
	if env, err = Attach(env, testType, seal(t, alice)); err != nil {
		t.Fatal(err)
	}
	if err := verify(env); !errors.Is(err, ErrUntrusted) {
		t.Errorf("one signature of two: %v", err)
	}
	raw, err := bob.SignMessage(bytes.NewReader(ToBeSigned(testType, []byte("payload"))))
	if err != nil {
		t.Fatal(err)
	}
	if env, err = AttachSignature(env, testType, bobPub, raw); err != nil {
		t.Fatal(err)
	}
	if err := verify(env); err != nil {
		t.Error(err)
	}
	// The same once more is no third one.
	if env, err = Attach(env, testType, seal(t, alice, bob)); err != nil {
		t.Fatal(err)
	}
	if _, n, _ := Unverified(env, testType); n != 2 {
		t.Errorf("%d signatures, want 2", n)
	}
	if err := verify(env); err != nil {
		t.Error(err)
	}
}

func TestAttachRefuses(t *testing.T) {
	alice, alicePub := newPair(t, ECDSAP256)
	_, bobPub := newPair(t, Ed25519)
	unsigned, err := Unsigned(testType, []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := Seal(testType, []byte("another payload"), alice)
	if err != nil {
		t.Fatal(err)
	}
	otherType, err := Seal("text/plain", []byte("payload"), alice)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		envelope []byte
		want     error
	}{
		"another payload":   {other, ErrMalformed},
		"another type":      {otherType, ErrPayloadType},
		"nothing to attach": {unsigned, ErrMalformed},
		"no envelope":       {[]byte("payload"), ErrMalformed},
	} {
		if _, err := Attach(unsigned, testType, tc.envelope); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	raw, err := alice.SignMessage(bytes.NewReader([]byte("payload"))) // without the type
	if err != nil {
		t.Fatal(err)
	}
	if _, err := AttachSignature(unsigned, testType, alicePub, raw); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a signature over the bare payload: %v", err)
	}
	if _, err := AttachSignature(unsigned, testType, bobPub, raw); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a signature by another key: %v", err)
	}
	if _, err := Unsigned("", nil); err == nil {
		t.Error("an envelope without a type")
	}
}

// wrong is a token whose public half is not that of the key it signs with.
type wrong struct {
	Signer
	by Signer
}

func (w wrong) SignMessage(r io.Reader, o ...signature.SignOption) ([]byte, error) {
	return w.by.SignMessage(r, o...)
}

// A signature is verified where it is made, so that no device has to find out.
func TestSealVerifiesWhatItMade(t *testing.T) {
	alice, _ := newPair(t, ECDSAP256)
	bob, _ := newPair(t, ECDSAP256)
	env := seal(t, alice)
	if b, err := Seal(testType, []byte("payload"), wrong{alice, bob}); !errors.Is(err, ErrUntrusted) {
		t.Errorf("Seal: %q, %v", b, err)
	}
	if b, err := Add(env, testType, wrong{bob, alice}); !errors.Is(err, ErrUntrusted) {
		t.Errorf("Add: %q, %v", b, err)
	}
}
