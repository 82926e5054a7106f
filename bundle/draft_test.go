// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/updaterd/updaterd/sign"
)

// A bundle is built on one machine, its manifest signed on two others, and the
// signatures put into it: the payload is the one that was built, byte by byte.
func TestDraft(t *testing.T) {
	dir := t.TempDir()
	spec := testSpec(t, dir)
	alice, _ := testKey(t, "alice")
	bob, _ := testKey(t, "bob")
	spec.Signers, spec.Unsigned = nil, true
	path := buildWatched(t, dir, spec)
	if _, err := Open(path, testPolicy(t, "alice", 1)); !errors.Is(err, sign.ErrMalformed) {
		t.Errorf("an unsigned bundle: %v", err)
	}
	draft, err := OpenDraft(path)
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Close()
	if draft.Signatures != 0 || draft.Digest != Sum(draft.Bytes()) {
		t.Errorf("%d signatures, digest %v of %q", draft.Signatures, draft.Digest, draft.Bytes())
	}
	if checked, err := draft.Check(context.Background(), nil); err != nil || len(checked) == 0 {
		t.Errorf("Check = %v, %v", checked, err)
	}
	payload := readFile(t, path)[draft.PayloadOffset:]
	seal := func(s sign.Signer) Detached {
		b, err := sign.Seal(PayloadType, draft.Bytes(), s)
		if err != nil {
			t.Fatal(err)
		}
		return Detached{Envelope: b}
	}
	raw, err := bob.SignMessage(bytes.NewReader(sign.ToBeSigned(PayloadType, draft.Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	bobPub, err := bob.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	alicePub, err := alice.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	ring, err := sign.NewKeyring(alicePub, bobPub)
	if err != nil {
		t.Fatal(err)
	}
	signed := filepath.Join(dir, "signed.upb")
	if _, err := draft.Attach(signed, ring.Policy(2), seal(alice)); !errors.Is(err, sign.ErrUntrusted) {
		t.Errorf("one signature of two: %v", err)
	}
	checkNoLitter(t, dir, "v1", "v2", "boot", "test.upb")
	v, err := draft.Attach(signed, ring.Policy(2), seal(alice), Detached{Signature: raw, Key: bobPub})
	if err != nil {
		t.Fatal(err)
	}
	if v.Digest != draft.Digest || len(v.KeyIDs) != 2 {
		t.Errorf("Attach = %+v", v)
	}
	f, err := Open(signed, ring.Policy(2))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := readFile(t, signed)[f.PayloadOffset:]; f.Digest != draft.Digest || !bytes.Equal(got, payload) {
		t.Error("the signed bundle is not the one that was built")
	}
	// A signed one is not signed without a look at who did.
	again, err := OpenDraft(signed)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Sign(signed, alice); err == nil || again.Signatures != 2 {
		t.Errorf("Sign of a bundle with %d signatures: %v", again.Signatures, err)
	}
	// In place, with the key at hand.
	if err := draft.Sign(path, alice); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, path); !bytes.HasSuffix(got, payload) {
		t.Error("Sign changed the payload")
	}
	openTest(t, path)
}

// A draft of something else, or with another length, is none.
func TestDraftRefuses(t *testing.T) {
	dir := t.TempDir()
	b := readFile(t, buildTest(t, dir))
	for name, tc := range map[string]struct {
		content []byte
		want    error
	}{
		"short":  {b[:len(b)-1], ErrTruncated},
		"long":   {append(bytes.Clone(b), 0), ErrTrailing},
		"header": {b[:HeaderSize], ErrTruncated},
		"other":  {[]byte("a file of sixteen bytes or more"), ErrMalformed},
	} {
		if d, err := OpenDraft(writeFile(t, dir, "x", tc.content)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
}
