// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// Bounds of an envelope. They are checked before anything is allocated for it.
const (
	MaxEnvelope   = 1 << 20 // bytes
	MaxSignatures = 8
	// MaxChain is how many certificates may come with a signature: the signer's own
	// and the intermediate ones. The root never does.
	MaxChain = 4
	// MaxEntries is how many log entries may come with a signature.
	MaxEntries = 4
	// maxHashes is the depth of a tree with as many entries as an int64 counts.
	maxHashes = 63
)

// envelope is the JSON form. The order of the fields is the order in which they are written.
type envelope struct {
	PayloadType string          `json:"payloadType"`
	Payload     string          `json:"payload"`
	Signatures  []wireSignature `json:"signatures"`
}

type wireSignature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
	// Chain has certificates in base64 (DER), the signer's own first. It is not
	// signed, and needs not be: it leads to a root that is believed, or it does not.
	Chain []string `json:"chain,omitempty"`
	// Log has what transparency logs keep of this signature. It is not signed
	// either: a log vouches for it, or it proves nothing.
	Log []wireEntry `json:"log,omitempty"`
}

// wireEntry is one entry of a log, with the proof that it is there.
type wireEntry struct {
	Index int64 `json:"index"` // in the log, from 0
	// Hashes leads from the entry to the root of the log's tree, lowest first.
	Hashes     []string `json:"hashes,omitempty"`
	Checkpoint string   `json:"checkpoint"` // signed note
	Body       string   `json:"body"`
}

// parse reads an envelope without believing any of it. It accepts only what
// marshal would write, with at least one signature.
func parse(b []byte) (*envelope, error) {
	env, err := parseUnsigned(b)
	if err == nil && len(env.Signatures) == 0 {
		return nil, ErrUnsigned
	}
	return env, err
}

// parseUnsigned is parse for those who are about to sign: it also accepts an
// envelope that nobody has signed yet.
func parseUnsigned(b []byte) (*envelope, error) {
	if len(b) > MaxEnvelope {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrMalformed, len(b), MaxEnvelope)
	}
	// Arrays, not slices: encoding/json skips what does not fit, so a list of a
	// hundred thousand empty signatures costs no memory.
	var wire struct {
		PayloadType string `json:"payloadType"`
		Payload     string `json:"payload"`
		Signatures  [MaxSignatures + 1]*struct {
			KeyID string                `json:"keyid"`
			Sig   string                `json:"sig"`
			Chain [MaxChain + 1]*string `json:"chain"`
			Log   [MaxEntries + 1]*struct {
				Index      int64                  `json:"index"`
				Hashes     [maxHashes + 1]*string `json:"hashes"`
				Checkpoint string                 `json:"checkpoint"`
				Body       string                 `json:"body"`
			} `json:"log"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(b, &wire); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	env := &envelope{PayloadType: wire.PayloadType, Payload: wire.Payload, Signatures: []wireSignature{}}
	for _, s := range wire.Signatures {
		if s == nil {
			break
		}
		one := wireSignature{KeyID: s.KeyID, Sig: s.Sig, Chain: listed(s.Chain[:])}
		if len(one.Chain) > MaxChain {
			return nil, fmt.Errorf("%w: more than %d certificates with a signature", ErrMalformed, MaxChain)
		}
		for _, e := range s.Log {
			if e == nil {
				break
			}
			one.Log = append(one.Log, wireEntry{Index: e.Index, Hashes: listed(e.Hashes[:]), Checkpoint: e.Checkpoint, Body: e.Body})
			if len(one.Log) > MaxEntries || e.Hashes[maxHashes] != nil {
				return nil, fmt.Errorf("%w: more than %d log entries with a signature, or %d hashes with one of them", ErrMalformed, MaxEntries, maxHashes)
			}
		}
		env.Signatures = append(env.Signatures, one)
	}
	switch n := len(env.Signatures); {
	case n > MaxSignatures:
		return nil, fmt.Errorf("%w: more than %d signatures", ErrMalformed, MaxSignatures)
	case env.PayloadType == "":
		return nil, fmt.Errorf("%w: no payload type", ErrMalformed)
	}
	again, err := json.Marshal(env)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	// This one comparison refuses unknown, repeated and case-folded members,
	// white space, nulls, broken UTF-8 and superfluous escapes alike.
	if !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: not in canonical form (an unknown, repeated or misspelt member, or white space)", ErrMalformed)
	}
	if _, err := decode(env.Payload); err != nil {
		return nil, fmt.Errorf("%w: payload: %v", ErrMalformed, err)
	}
	for i, s := range env.Signatures {
		if sig, err := decode(s.Sig); err != nil || len(sig) == 0 {
			return nil, fmt.Errorf("%w: signature %d is empty or not base64", ErrMalformed, i+1)
		}
		for _, c := range s.Chain {
			if der, err := decode(c); err != nil || len(der) == 0 {
				return nil, fmt.Errorf("%w: a certificate of signature %d is empty or not base64", ErrMalformed, i+1)
			}
		}
		for _, e := range s.Log {
			if _, err := e.read(); err != nil {
				return nil, fmt.Errorf("%w: a log entry of signature %d: %v", ErrMalformed, i+1, err)
			}
		}
	}
	return env, nil
}

// listed takes what there is of a list of bounded length.
func listed(list []*string) (all []string) {
	for _, s := range list {
		if s == nil {
			break
		}
		all = append(all, *s)
	}
	return all
}

func (e *envelope) marshal() ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("write envelope: %w", err)
	}
	// What cannot be read back is never written.
	if _, err := parseUnsigned(b); err != nil {
		return nil, fmt.Errorf("write envelope: %w", err)
	}
	return b, nil
}

// single is the envelope reduced to one signature without its key id, chain and log: the
// DSSE verifier would pass over a signature whose key id is not the one it computes
// itself, and a hint must never decide that.
func (e *envelope) single(s wireSignature) ([]byte, error) {
	return json.Marshal(envelope{
		PayloadType: e.PayloadType,
		Payload:     e.Payload,
		Signatures:  []wireSignature{{Sig: s.Sig}},
	})
}

// decode reads base64 in its only accepted form. Decoders pass over CR and LF
// and stray bits at the end; comparing closes every such door.
func decode(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, err
	}
	if base64.StdEncoding.EncodeToString(b) != s {
		return nil, fmt.Errorf("not in canonical base64")
	}
	return b, nil
}
