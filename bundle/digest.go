// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// DigestSize is the length of a digest in a table.
const DigestSize = sha256.Size

const digestPrefix = "sha256:"

// A Digest is a SHA-256. As text it is "sha256:" and 64 lower-case hex digits.
type Digest [DigestSize]byte

// Sum is the digest of b.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// zeroDigest is the digest of n zeros.
func zeroDigest(n int) (d Digest) {
	hash := sha256.New()
	var zeros [4096]byte
	for ; n > 0; n -= len(zeros) {
		hash.Write(zeros[:min(n, len(zeros))])
	}
	return Digest(hash.Sum(nil))
}

func (d Digest) String() string { return digestPrefix + hex.EncodeToString(d[:]) }

// MarshalText is String.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is ParseDigest.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDigest(string(b))
	return err
}

// ParseDigest reads what String writes, and nothing else.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	digits, found := strings.CutPrefix(s, digestPrefix)
	if !found || len(digits) != hex.EncodedLen(len(d)) || strings.ToLower(digits) != digits {
		return Digest{}, fmt.Errorf("digest %.80q: want %q and %d lower-case hex digits", s, digestPrefix, hex.EncodedLen(len(d)))
	}
	if _, err := hex.Decode(d[:], []byte(digits)); err != nil {
		return Digest{}, fmt.Errorf("digest %.80q: %v", s, err)
	}
	return d, nil
}
