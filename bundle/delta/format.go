// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxTarget is the longest chunk a patch can make.
const MaxTarget = 4 << 20

// mostExpanded is the longest expanded form of a chunk, and of the source blocks
// it is compared with.
const mostExpanded = 6 << 20

// maxSource bounds source sizes so that sums of positions cannot overflow.
const maxSource = 1 << 56

// The first byte of a patch: what follows it are the instructions, or first a list
// of deflate blocks (docs/delta.md, "Expanded blocks").
const (
	versionPlain    = 1
	versionExpanded = 2
)

// wordSize is the width in bytes of a difference (docs/delta.md, "The words").
const wordSize = 4

// ErrMalformed is returned for a patch that breaks a rule of the format.
var ErrMalformed = errors.New("malformed patch")

// ErrSource is returned when it turns out that the source is not the one that
// the patch was made for. Often that does not turn out.
var ErrSource = errors.New("the source is another one than the patch is for")

func malformed(format string, args ...any) error {
	return fmt.Errorf("apply patch: %w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// uvarint takes a number in its shortest form off the front of b.
func uvarint(b []byte) (v uint64, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], true
	}
	v, n := binary.Uvarint(b)
	if n <= 0 || b[n-1] == 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

func zigzag(v int64) uint64   { return uint64(v<<1) ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }
