// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxTarget is the longest chunk a patch can make.
const MaxTarget = 4 << 20

// maxSource bounds source sizes so that sums of positions cannot overflow.
const maxSource = 1 << 56

// maxWindow bounds the zstd window that a patch may ask for.
const maxWindow = 2*MaxTarget + 64<<10

// The first byte of a patch: what follows it are the streams, or first a list
// of deflate blocks (docs/delta.md, "Expanded blocks").
const (
	versionPlain    = 1
	versionExpanded = 2
)

// wordSize is the width in bytes of a difference (docs/delta.md, "The words").
const wordSize = 4

// The streams of a patch, in their order.
const (
	streamControl = iota
	streamShifts
	streamGaps
	streamWords
	streamLiterals
	streamCount
)

// ErrMalformed is returned for a patch that breaks a rule of the format.
var ErrMalformed = errors.New("malformed patch")

// ErrSource is returned when it turns out that the source is not the one that
// the patch was made for. Often that does not turn out.
var ErrSource = errors.New("the source is another one than the patch is for")

func malformed(format string, args ...any) error {
	return fmt.Errorf("apply patch: %w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// maxStreams bounds the decoded length of all streams of a patch together.
// Patch falls back to one literal, which fits, when a chunk would exceed it.
func maxStreams(target int) int { return 2*target + 64 }

// An extent is where a stream lies in the patch, and its length when decoded.
type extent struct {
	encoded []byte
	decoded int
}

// parse splits what follows a patch's head, and makes target bytes, into its streams.
func parse(p []byte, target int) (s [streamCount]extent, err error) {
	var length [streamCount]int
	total := 0
	for i := range s {
		var n, m uint64
		var ok bool
		if n, p, ok = uvarint(p); !ok {
			return s, malformed("header is cut off")
		}
		if m, p, ok = uvarint(p); !ok {
			return s, malformed("header is cut off")
		}
		if limit := uint64(maxStreams(target) - total); n > limit || m > n || (m == 0 && n > 0) {
			return s, malformed("stream %d has impossible lengths %d and %d", i, n, m)
		}
		s[i].decoded, length[i] = int(n), int(m)
		total += int(n)
	}
	for i := range s {
		if length[i] > len(p) {
			return s, malformed("stream %d is cut off", i)
		}
		s[i].encoded, p = p[:length[i]], p[length[i]:]
	}
	if len(p) != 0 {
		return s, malformed("%d bytes too many", len(p))
	}
	return s, nil
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
