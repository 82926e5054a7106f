// SPDX-License-Identifier: Apache-2.0

// Package logtest is a small transparency log that answers as Rekor does, for tests.
//
// Its tree is that of RFC 6962 by the letter of section 2.1, and shares no code with what
// verifies it. It is linked into no program.
//
//	l := logtest.New("log.example.com - 42", key)
//	l.Fill(5)
//	at := l.Add(body)
//	answer := l.Answer1(at)
package logtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
)

// A Log takes any leaf.
type Log struct {
	Origin string
	Key    crypto.Signer // ECDSA P-256 or Ed25519
	Leaves [][]byte
}

// New is a log without entries.
func New(origin string, key crypto.Signer) *Log { return &Log{Origin: origin, Key: key} }

// PublicKey is that of the log, as a file.
func (l *Log) PublicKey() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: l.der()})
}

func (l *Log) der() []byte {
	der, err := x509.MarshalPKIXPublicKey(l.Key.Public())
	must(err)
	return der
}

// Add adds a leaf and returns its index.
func (l *Log) Add(body []byte) int {
	l.Leaves = append(l.Leaves, body)
	return len(l.Leaves) - 1
}

// Fill adds leaves of others.
func (l *Log) Fill(n int) {
	for range n {
		l.Add(fmt.Appendf(nil, "leaf %d", len(l.Leaves)))
	}
}

// Text is that of a checkpoint of the first n entries.
func (l *Log) Text(n int) string {
	root := treeHash(l.Leaves[:n])
	return fmt.Sprintf("%s\n%d\n%s\n", l.Origin, n, b64(root[:]))
}

// Sign makes a signed note of a text.
func (l *Log) Sign(text string) []byte {
	name, _, _ := strings.Cut(l.Origin, " ")
	message, hash := []byte(text), sha256.Sum256(l.der())
	opts := crypto.Hash(0)
	switch pub := l.Key.Public().(type) {
	case ed25519.PublicKey:
		hash = sha256.Sum256(append([]byte(name+"\n\x01"), pub...))
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		message, opts = sum[:], crypto.SHA256
	}
	sig, err := l.Key.Sign(rand.Reader, message, opts)
	must(err)
	return fmt.Appendf(nil, "%s\n— %s %s\n", text, name, b64(append(hash[:4:4], sig...)))
}

// Checkpoint is the signed note about all entries.
func (l *Log) Checkpoint() []byte { return l.Sign(l.Text(len(l.Leaves))) }

// Proof leads from the leaf at the index to the root of the whole log.
func (l *Log) Proof(index int) [][]byte { return path(index, l.Leaves) }

func treeHash(leaves [][]byte) [32]byte {
	if len(leaves) == 1 {
		return sha256.Sum256(append([]byte{0}, leaves[0]...))
	}
	k := split(len(leaves))
	left, right := treeHash(leaves[:k]), treeHash(leaves[k:])
	return sha256.Sum256(slices.Concat([]byte{1}, left[:], right[:]))
}

// split is the largest power of two smaller than n.
func split(n int) int {
	k := 1
	for 2*k < n {
		k *= 2
	}
	return k
}

func path(m int, leaves [][]byte) [][]byte {
	if len(leaves) == 1 {
		return nil
	}
	k := split(len(leaves))
	if m < k {
		h := treeHash(leaves[k:])
		return append(path(m, leaves[:k]), h[:])
	}
	h := treeHash(leaves[:k])
	return append(path(m-k, leaves[k:]), h[:])
}

// Answer1 is what Rekor 1 answers about an entry. Its index and time are those of no proof.
func (l *Log) Answer1(index int) []byte {
	hashes := []string{}
	for _, h := range l.Proof(index) {
		hashes = append(hashes, hex.EncodeToString(h))
	}
	root := treeHash(l.Leaves)
	return Canonical(Object{"108e9186e8c5677a": Object{
		"body": b64(l.Leaves[index]), "integratedTime": 1769860800, "logID": hex.EncodeToString(l.der()), "logIndex": 1000 + index,
		"verification": Object{
			"inclusionProof": Object{
				"checkpoint": string(l.Checkpoint()), "hashes": hashes, "logIndex": index,
				"rootHash": hex.EncodeToString(root[:]), "treeSize": len(l.Leaves),
			},
			"signedEntryTimestamp": "",
		},
	}})
}

// Answer2 is what Rekor 2 answers, and what Sigstore bundles have, about an entry.
// Numbers are texts, and a 0 is left out.
func (l *Log) Answer2(index int) []byte {
	hashes := []string{}
	for _, h := range l.Proof(index) {
		hashes = append(hashes, b64(h))
	}
	root := treeHash(l.Leaves)
	proof := Object{
		"checkpoint": Object{"envelope": string(l.Checkpoint())}, "hashes": hashes,
		"rootHash": b64(root[:]), "treeSize": fmt.Sprint(len(l.Leaves)),
	}
	if index > 0 {
		proof["logIndex"] = fmt.Sprint(index)
	}
	return Canonical(Object{"logIndex": fmt.Sprint(index), "canonicalizedBody": b64(l.Leaves[index]), "inclusionProof": proof})
}

// Take adds the entry that a request to Rekor 1 or 2 asks for, and returns its index.
func (l *Log) Take(request []byte) (int, error) {
	var r struct {
		Kind string         `json:"kind"`
		V2   map[string]any `json:"hashedRekordRequestV002"`
		Spec struct {
			Proposed *struct {
				Envelope  string   `json:"envelope"`
				Verifiers []string `json:"verifiers"`
			} `json:"proposedContent"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(request, &r); err != nil {
		return 0, err
	}
	switch {
	case r.V2 != nil:
		return l.Add(Canonical(Object{"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": Object{"hashedRekordV002": Object{
			"data": Object{"algorithm": "SHA2_256", "digest": r.V2["digest"]}, "signature": r.V2["signature"],
		}}})), nil
	case r.Kind == "hashedrekord": // keeps what it is asked to
		var all any
		if err := json.Unmarshal(request, &all); err != nil {
			return 0, err
		}
		return l.Add(Canonical(all)), nil
	case r.Kind == "dsse" && r.Spec.Proposed != nil && len(r.Spec.Proposed.Verifiers) == 1:
		var e struct {
			Payload    []byte `json:"payload"`
			Signatures []struct {
				Sig string `json:"sig"`
			} `json:"signatures"`
		}
		if err := json.Unmarshal([]byte(r.Spec.Proposed.Envelope), &e); err != nil {
			return 0, err
		}
		var signatures []Object
		for _, s := range e.Signatures {
			signatures = append(signatures, Object{"signature": s.Sig, "verifier": r.Spec.Proposed.Verifiers[0]})
		}
		shown, payload := sha256.Sum256([]byte(r.Spec.Proposed.Envelope)), sha256.Sum256(e.Payload)
		return l.Add(Canonical(Object{"apiVersion": "0.0.1", "kind": "dsse", "spec": Object{
			"envelopeHash": Object{"algorithm": "sha256", "value": hex.EncodeToString(shown[:])},
			"payloadHash":  Object{"algorithm": "sha256", "value": hex.EncodeToString(payload[:])},
			"signatures":   signatures,
		}})), nil
	}
	return 0, fmt.Errorf("logtest: no request to Rekor: %.80q", request)
}

// An Object is one of JSON.
type Object = map[string]any

// Canonical is JSON in canonical form, of values whose texts are ASCII.
func Canonical(v any) []byte {
	b, err := json.Marshal(v) // sorts the members
	must(err)
	return b
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}
