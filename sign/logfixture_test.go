// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/sign/logtest"
)

var b64 = base64.StdEncoding.EncodeToString

const testOrigin = "log.example.com - 42"

// newLog makes a log with a key of its own.
func newLog(t testing.TB, algorithm string) *logtest.Log {
	t.Helper()
	if algorithm == Ed25519 {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return logtest.New(testOrigin, key)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return logtest.New(testOrigin, key)
}

// entryOf proves the leaf at an index to be in the whole log.
func entryOf(l *logtest.Log, index int) wireEntry {
	return wireEntry{Index: int64(index), Hashes: proofOf(l, index), Checkpoint: b64(l.Checkpoint()), Body: b64(l.Leaves[index])}
}

func proofOf(l *logtest.Log, index int) (hashes []string) {
	for _, h := range l.Proof(index) {
		hashes = append(hashes, b64(h))
	}
	return hashes
}

type obj = logtest.Object

// A subject is what a log may keep of a signature.
type subject struct {
	payload    []byte
	sig        string // base64
	pem, der   []byte // of the key or of the certificate
	isCert     bool
	shown      string // digest of the envelope that the log was shown
	signatures int    // copies in a dsse entry
}

func (s subject) signed() [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(testType), testType, len(s.payload), s.payload))
}

func (s subject) hashed1() []byte {
	return logtest.Canonical(obj{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": obj{
		"data":      obj{"hash": obj{"algorithm": "sha256", "value": fmt.Sprintf("%x", s.signed())}},
		"signature": obj{"content": s.sig, "publicKey": obj{"content": b64(s.pem)}},
	}})
}

func (s subject) hashed2() []byte {
	digest, field := s.signed(), "publicKey"
	if s.isCert {
		field = "x509Certificate"
	}
	return logtest.Canonical(obj{"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": obj{"hashedRekordV002": obj{
		"data":      obj{"algorithm": "SHA2_256", "digest": b64(digest[:])},
		"signature": obj{"content": s.sig, "verifier": obj{"keyDetails": "PKIX_ECDSA_P256_SHA_256", field: obj{"rawBytes": b64(s.der)}}},
	}}})
}

func (s subject) dsse1() []byte {
	var list []any
	for range max(s.signatures, 1) {
		list = append(list, obj{"signature": s.sig, "verifier": b64(s.pem)})
	}
	return logtest.Canonical(obj{"apiVersion": "0.0.1", "kind": "dsse", "spec": obj{
		"envelopeHash": obj{"algorithm": "sha256", "value": s.shown},
		"payloadHash":  obj{"algorithm": "sha256", "value": fmt.Sprintf("%x", sha256.Sum256(s.payload))},
		"signatures":   list,
	}})
}

// subjectOfSignature is signature i of an envelope, by the holder of the public key.
func subjectOfSignature(t testing.TB, env []byte, i int, pub crypto.PublicKey) subject {
	t.Helper()
	e, err := parse(env)
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := decode(e.Payload)
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return subject{payload: payload, sig: e.Signatures[i].Sig, pem: pubPEM(t, pub), der: der, shown: strings.Repeat("ab", 32)}
}

// withEntry puts entries beside the first signature.
func withEntry(t testing.TB, env []byte, entries ...wireEntry) []byte {
	t.Helper()
	return edit(t, env, func(e *envelope) { e.Signatures[0].Log = entries })
}

// logPolicy is a keyring of named signers' keys and keys of logs, and its policy.
func logPolicy(t testing.TB, signers map[string]crypto.PublicKey, logs map[string]*logtest.Log, rules string) *Policy {
	t.Helper()
	p, err := parseLogPolicy(t, signers, logs, rules)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func parseLogPolicy(t testing.TB, signers map[string]crypto.PublicKey, logs map[string]*logtest.Log, rules string) (*Policy, error) {
	t.Helper()
	files := make(map[string][]byte)
	text := ""
	for name, pub := range signers {
		files[name+".pub"] = pubPEM(t, pub)
		text += fmt.Sprintf("[signers.%s]\nfile = %q\n", name, name+".pub")
	}
	for name, l := range logs {
		files[name+".tlog"] = l.PublicKey()
		text += fmt.Sprintf("[logs.%s]\nfile = %q\norigin = %q\n", name, name+".tlog", l.Origin)
	}
	// Keys of the whole file come first.
	before, after, _ := strings.Cut(rules, "[[rule]]")
	return ParsePolicy([]byte(before+text+"[[rule]]"+after), loadFiles(t, files))
}

const aliceLogged = "[[rule]]\nsigners = [\"alice\"]\nlogs = [\"log\"]\nthreshold = 1\n"
