// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	// maxCheckpoint and maxBody bound the parts of a log entry, in characters of
	// base64. A body has the signer's certificate at most, in base64 twice over.
	maxCheckpoint = 16 << 10
	maxBody       = 32 << 10
	// maxNoteLines bounds the signatures of a checkpoint, most of which are by
	// witnesses that nobody here knows.
	maxNoteLines = 16
	// maxLogs bounds the logs of a policy and of a keyring.
	maxLogs = 8
)

// A LogEntry tells where a log keeps a signature.
type LogEntry struct {
	KeyID string `json:"key_id"` // of the signature
	// Log is the policy's name for the log that is proven to have the entry; "" if
	// nothing is proven.
	Log    string `json:"log,omitempty"`
	Origin string `json:"origin"`    // what the log calls itself
	Index  int64  `json:"index"`     // of the entry, from 0
	Size   int64  `json:"tree_size"` // how many entries the log had then
}

// A transparencyLog is a log whose checkpoints a policy believes. Its key is never
// among those that may sign a payload.
type transparencyLog struct {
	trustedKey
	name, origin string
}

// A checkpoint is what a log signs: the tree of all its entries.
type checkpoint struct {
	origin string
	size   int64
	root   tlog.Hash
	text   string // that is signed
	sigs   [][]byte
}

// parseCheckpoint reads a signed note (C2SP signed-note and tlog-checkpoint).
// Lines after the third of the text say nothing here. Neither do the name and the key hash of
// a signature, which are not signed.
func parseCheckpoint(b []byte) (*checkpoint, error) {
	malformed := errors.New("its checkpoint is no signed note of an origin, a size and a root hash")
	at := bytes.LastIndex(b, []byte("\n\n"))
	if at < 0 {
		return nil, malformed
	}
	c := &checkpoint{text: string(b[:at+1])}
	lines := strings.SplitN(c.text, "\n", 4)
	if len(lines) < 4 || lines[0] == "" || strings.ContainsFunc(lines[0], unicode.IsControl) {
		return nil, malformed
	}
	root, err := decode(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return nil, malformed
	}
	c.origin, c.root = lines[0], tlog.Hash(root)
	if c.size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || c.size < 1 || strconv.FormatInt(c.size, 10) != lines[1] {
		return nil, malformed
	}
	for line := range strings.Lines(string(b[at+2:])) {
		rest, dash := strings.CutPrefix(line, "— ")
		_, sig, named := strings.Cut(strings.TrimSuffix(rest, "\n"), " ")
		raw, err := decode(sig)
		if !dash || !named || err != nil || len(raw) < 5 || len(c.sigs) == maxNoteLines {
			return nil, malformed
		}
		c.sigs = append(c.sigs, raw[4:])
	}
	return c, nil
}

// by reports whether the log with the key signed the checkpoint.
func (c *checkpoint) by(key trustedKey) bool {
	for _, sig := range c.sigs {
		if key.verifier.VerifySignature(bytes.NewReader(sig), strings.NewReader(c.text)) == nil {
			return true
		}
	}
	return false
}

// entryParts are those of a wireEntry, decoded.
type entryParts struct {
	index int64
	proof tlog.RecordProof
	tree  *checkpoint
	body  []byte
}

// read takes an entry apart without believing any of it.
func (e *wireEntry) read() (*entryParts, error) {
	p := &entryParts{index: e.Index}
	if e.Index < 0 || len(e.Checkpoint) > maxCheckpoint || len(e.Body) > maxBody {
		return nil, errors.New("its index is below 0, or its checkpoint or body too long")
	}
	note, err := decode(e.Checkpoint)
	if err != nil {
		return nil, fmt.Errorf("its checkpoint: %v", err)
	}
	if p.tree, err = parseCheckpoint(note); err != nil {
		return nil, err
	}
	if p.body, err = decode(e.Body); err != nil || len(p.body) == 0 {
		return nil, errors.New("its body is empty or not base64")
	}
	for _, h := range e.Hashes {
		b, err := decode(h)
		if err != nil || len(b) != tlog.HashSize {
			return nil, errors.New("a hash of its proof is not one")
		}
		p.proof = append(p.proof, tlog.Hash(b))
	}
	return p, nil
}

// included checks that the tree of the checkpoint has the body at the index
// (RFC 6962, section 2.1.1).
func (p *entryParts) included() error {
	if p.index >= p.tree.size {
		return fmt.Errorf("its index is %d, and the checkpoint is of %d entries", p.index, p.tree.size)
	}
	if tlog.CheckRecord(p.proof, p.tree.size, p.tree.root, p.index, tlog.RecordHash(p.body)) != nil {
		return errors.New("its hashes do not lead to the root of the checkpoint")
	}
	return nil
}

// keep adds to a mark the log entries that came with it, as far as logs of the
// policy vouch for them.
func (p *Policy) keep(m *mark, s *wireSignature, payloadType string, found *testimony) {
	if len(p.logs) == 0 {
		return
	}
	for i := range s.Log {
		parts, err := s.Log[i].read()
		if err == nil {
			err = p.prove(parts, m, s.Sig, payloadType, found)
		}
		if err != nil {
			found.doubts = append(found.doubts, fmt.Sprintf("log entry %d of the signature by key %s: %v", i+1, m.key, err))
		}
	}
}

// prove takes up one log entry: a log of the policy signed a tree that has it, and it
// is about this signature of this payload by this key.
func (p *Policy) prove(parts *entryParts, m *mark, sig, payloadType string, found *testimony) error {
	err := fmt.Errorf("the policy has no log %.80q", parts.tree.origin)
	for i := range p.logs {
		log := &p.logs[i]
		if log.origin != parts.tree.origin {
			continue
		}
		if !parts.tree.by(log.trustedKey) {
			err = fmt.Errorf("its checkpoint is not signed with the key of log %s", log.name)
			continue
		}
		if err := m.isBody(parts.body, sig, payloadType, found.payload); err != nil {
			return err
		}
		if err := parts.included(); err != nil {
			return err
		}
		m.entries = append(m.entries, LogEntry{m.key, log.name, log.origin, parts.index, parts.tree.size})
		return nil
	}
	return err
}
