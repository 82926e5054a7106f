// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The versions of Rekor, whose interfaces differ.
const (
	Rekor1 = 1
	Rekor2 = 2
)

// MaxLogResponse bounds what a log answers, in bytes.
const MaxLogResponse = 1 << 20

// requestHashed2 is what Rekor 2 is asked with. Rekor 1 is asked for a hashedrekord
// with what it will keep of it.
const requestHashed2 = `{"hashedRekordRequestV002":{"digest":"%s","signature":{"content":"%s","verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","%s":{"rawBytes":"%s"}}}}}`

// Unlogged is p without the logs that its rules ask for: for whoever is about to log
// what is signed.
func (p *Policy) Unlogged() *Policy {
	q := *p
	q.rules = slices.Clone(p.rules)
	for i := range q.rules {
		q.rules[i].logs = nil
	}
	return &q
}

// LogRequest is what to send to a Rekor of the version, so that it makes an entry for
// one signature of an envelope: that by the key with the id, or the only one if id is
// "". Only signatures by keys that the policy believes for something are taken.
//
// For an ECDSA key that is the digest of what was signed. An Ed25519 key signs the
// whole, and so the log has to see the whole.
func (p *Policy) LogRequest(b []byte, payloadType, id string, rekor int) ([]byte, error) {
	request, err := p.logRequest(b, payloadType, id, rekor)
	if err != nil {
		return nil, fmt.Errorf("ask for a log entry: %w", err)
	}
	return request, nil
}

func (p *Policy) logRequest(b []byte, payloadType, id string, rekor int) ([]byte, error) {
	env, found, err := p.inspected(b, payloadType)
	if err != nil {
		return nil, err
	}
	var ids []string
	var m *mark
	for i := range found.marks {
		ids = append(ids, found.marks[i].key)
		if id == "" || id == found.marks[i].key {
			m = &found.marks[i]
		}
	}
	switch {
	case m == nil:
		return nil, fmt.Errorf("%w: no signature by key %.80q; there are those by %s", ErrUntrusted, id, strings.Join(ids, ", "))
	case id == "" && len(ids) > 1:
		return nil, fmt.Errorf("there are %d signatures, and each needs an entry of its own; name one of the keys %s", len(ids), strings.Join(ids, ", "))
	}
	pub, err := m.verifier.PublicKey()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	field, block := "publicKey", publicPEM
	if m.chain != nil {
		field, block, der = "x509Certificate", certificatePEM, m.chain[0].Raw
	}
	b64 := base64.StdEncoding.EncodeToString
	sig, signed := env.Signatures[m.at].Sig, sha256.Sum256(ToBeSigned(payloadType, found.payload))
	_, hashed := pub.(*ecdsa.PublicKey)
	switch {
	case rekor != Rekor1 && rekor != Rekor2:
		return nil, fmt.Errorf("no request for Rekor %d is known", rekor)
	case rekor == Rekor2 && !hashed:
		return nil, fmt.Errorf("%w: Rekor 2 takes no signatures by Ed25519 keys; sign with an ECDSA P-256 key as well, or use Rekor 1", ErrKey)
	case rekor == Rekor2:
		return fmt.Appendf(nil, requestHashed2, b64(signed[:]), sig, field, b64(der)), nil
	case hashed:
		return fmt.Appendf(nil, bodyHashed1, signed, sig, b64(pemOf(block, der))), nil
	}
	one, err := env.single(env.Signatures[m.at])
	if err != nil {
		return nil, err
	}
	var request struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Spec       struct {
			Proposed struct {
				Envelope  string   `json:"envelope"`
				Verifiers [][]byte `json:"verifiers"`
			} `json:"proposedContent"`
		} `json:"spec"`
	}
	request.APIVersion, request.Kind = "0.0.1", "dsse"
	request.Spec.Proposed.Envelope, request.Spec.Proposed.Verifiers = string(one), [][]byte{pemOf(block, der)}
	return json.Marshal(request)
}

// AttachEntry puts what a log answered beside the signature that it is about. The answer
// is a log entry of Rekor 1 or 2, or a Sigstore bundle. The payload and all signatures
// stay as they are; an older entry of the same log is replaced.
//
// It must be proven that the log has the entry, and if the policy has logs, that one
// of them signed so; otherwise nobody has checked who did, and Log of the result is "".
func (p *Policy) AttachEntry(b []byte, payloadType string, answer []byte) ([]byte, *LogEntry, error) {
	out, entry, err := p.attachEntry(b, payloadType, answer)
	if err != nil {
		return nil, nil, fmt.Errorf("attach log entry: %w", err)
	}
	return out, entry, nil
}

func (p *Policy) attachEntry(b []byte, payloadType string, answer []byte) ([]byte, *LogEntry, error) {
	wire, err := parseAnswer(answer)
	if err != nil {
		return nil, nil, err
	}
	parts, err := wire.read()
	if err != nil {
		return nil, nil, err
	}
	env, found, err := p.inspected(b, payloadType)
	if err != nil {
		return nil, nil, err
	}
	var m *mark
	for i := range found.marks {
		if err = found.marks[i].isBody(parts.body, env.Signatures[found.marks[i].at].Sig, payloadType, found.payload); err == nil {
			m = &found.marks[i]
			break
		}
	}
	switch {
	case m == nil && err == nil:
		return nil, nil, fmt.Errorf("%w: no signature by a key that is known here", ErrUntrusted)
	case m == nil:
		return nil, nil, err
	}
	if err := parts.included(); err != nil {
		return nil, nil, err
	}
	entry := &LogEntry{KeyID: m.key, Origin: parts.tree.origin, Index: parts.index, Size: parts.tree.size}
	s := &env.Signatures[m.at]
	if len(p.logs) > 0 {
		m.entries = nil
		if err := p.prove(parts, m, s.Sig, payloadType, found); err != nil {
			return nil, nil, err
		}
		entry = &m.entries[0]
	}
	s.Log = slices.DeleteFunc(s.Log, func(e wireEntry) bool {
		old, err := e.read()
		return err == nil && old.tree.origin == entry.Origin
	})
	s.Log = append(s.Log, *wire)
	out, err := env.marshal()
	return out, entry, err
}

// inspected finds out which keys that the policy believes signed an envelope of the type.
func (p *Policy) inspected(b []byte, payloadType string) (*envelope, *testimony, error) {
	env, err := parse(b)
	if err != nil {
		return nil, nil, err
	}
	if env.PayloadType != payloadType {
		return nil, nil, fmt.Errorf("%w: %q, want %q", ErrPayloadType, env.PayloadType, payloadType)
	}
	found, err := p.inspect(env)
	if err != nil {
		return nil, nil, err
	}
	found.marks = slices.DeleteFunc(found.marks, func(m mark) bool {
		return !slices.ContainsFunc(p.rules, func(r rule) bool {
			return slices.ContainsFunc(r.signers, func(s party) bool { mine, doubt := s.made(&m, found); return mine && doubt == "" })
		})
	})
	return env, found, nil
}

// String tells where the entry is, and whether that is proven.
func (e LogEntry) String() string {
	where := fmt.Sprintf("entry %d of %d in log %q", e.Index, e.Size, e.Origin)
	if e.Log == "" {
		return where + ", whose checkpoint nobody checked: give --policy with the log's key"
	}
	return fmt.Sprintf("%s, which is %s of the policy", where, e.Log)
}

// Entries lists the log entries of an envelope. Nobody has checked any of it: it is
// for showing to a person, who has to be told so.
func Entries(b []byte) ([]LogEntry, error) {
	env, err := parseUnsigned(b)
	if err != nil {
		return nil, fmt.Errorf("read log entries: %w", err)
	}
	var all []LogEntry
	for _, s := range env.Signatures {
		for i := range s.Log {
			parts, err := s.Log[i].read()
			if err != nil {
				return nil, fmt.Errorf("read log entries: %w", err)
			}
			all = append(all, LogEntry{Origin: parts.tree.origin, Index: parts.index, Size: parts.tree.size})
		}
	}
	return all, nil
}

// proof1 is how Rekor 1 proves an entry, and proof2 how Rekor 2 and Sigstore bundles do.
type proof1 struct {
	Index      json.Number `json:"logIndex"`
	Hashes     []string    `json:"hashes"` // hex
	Checkpoint string      `json:"checkpoint"`
}

type proof2 struct {
	Index      json.Number `json:"logIndex"`
	Hashes     [][]byte    `json:"hashes"`
	Checkpoint struct {
		Envelope string `json:"envelope"`
	} `json:"checkpoint"`
}

type answer2 struct {
	Body  []byte  `json:"canonicalizedBody"`
	Proof *proof2 `json:"inclusionProof"`
}

// parseAnswer reads what a log answers. It is lenient about what it does not use: the entry is
// verified, and written anew in the one form that an envelope has.
func parseAnswer(b []byte) (*wireEntry, error) {
	if len(b) > MaxLogResponse {
		return nil, fmt.Errorf("the log entry has more than %d bytes", MaxLogResponse)
	}
	var two struct {
		answer2
		Material *struct {
			Entries []answer2 `json:"tlogEntries"`
		} `json:"verificationMaterial"`
	}
	if err := json.Unmarshal(b, &two); err == nil {
		switch {
		case two.Material != nil && len(two.Material.Entries) != 1:
			return nil, fmt.Errorf("the Sigstore bundle has %d log entries, want one", len(two.Material.Entries))
		case two.Material != nil:
			return two.Material.Entries[0].entry()
		case two.Body != nil:
			return two.entry()
		}
	}
	var one map[string]struct {
		Body         []byte `json:"body"`
		Verification struct {
			Proof *proof1 `json:"inclusionProof"`
		} `json:"verification"`
	}
	if err := json.Unmarshal(b, &one); err != nil {
		return nil, fmt.Errorf("it is neither a log entry of Rekor nor a Sigstore bundle: %v", err)
	}
	if len(one) != 1 {
		return nil, fmt.Errorf("it has %d log entries, want one", len(one))
	}
	for _, e := range one {
		if e.Verification.Proof == nil {
			return nil, errNoProof
		}
		p := &proof2{Index: e.Verification.Proof.Index}
		p.Checkpoint.Envelope = e.Verification.Proof.Checkpoint
		for _, h := range e.Verification.Proof.Hashes {
			raw, err := hex.DecodeString(h)
			if err != nil {
				return nil, fmt.Errorf("a hash of the proof: %v", err)
			}
			p.Hashes = append(p.Hashes, raw)
		}
		return (&answer2{e.Body, p}).entry()
	}
	return nil, errors.New("internal error: a map of one entry has none")
}

var errNoProof = errors.New("the log entry has no inclusion proof with a checkpoint; ask the log for the entry again, once its next checkpoint has it")

func (a *answer2) entry() (*wireEntry, error) {
	if a.Proof == nil || a.Proof.Checkpoint.Envelope == "" {
		return nil, errNoProof
	}
	var index int64 // protobuf's JSON leaves a 0 out
	if a.Proof.Index != "" {
		var err error
		if index, err = a.Proof.Index.Int64(); err != nil {
			return nil, fmt.Errorf("the index in its log: %v", err)
		}
	}
	b64 := base64.StdEncoding.EncodeToString
	e := &wireEntry{Index: index, Checkpoint: b64([]byte(a.Proof.Checkpoint.Envelope)), Body: b64(a.Body)}
	if len(a.Proof.Hashes) > maxHashes {
		return nil, fmt.Errorf("the proof has more than %d hashes", maxHashes)
	}
	for _, h := range a.Proof.Hashes {
		e.Hashes = append(e.Hashes, b64(h))
	}
	return e, nil
}
