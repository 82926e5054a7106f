// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The header: docs/bundle-format.md#header.
const (
	// HeaderSize is the length of the header.
	HeaderSize = 16
	// HeaderVersion is the only container version there is.
	HeaderVersion = 1
	// MaxEnvelope is the longest envelope a reader accepts, so that a device
	// knows what it may have to hold before it has verified anything.
	MaxEnvelope = 1 << 20
)

// magic has a byte above 127, a CR LF and a lone LF, so that a transfer that
// mangles text is noticed at the first bytes.
var magic = [8]byte{0x89, 'U', 'P', 'B', '\r', '\n', 0x1a, '\n'}

// ParseHeader checks the first HeaderSize bytes of b and returns how many bytes
// of envelope follow them.
func ParseHeader(b []byte) (envelopeLength int, err error) {
	if len(b) < HeaderSize {
		return 0, fmt.Errorf("read header: %w: %w: %d bytes, a bundle starts with %d", ErrMalformed, ErrTruncated, len(b), HeaderSize)
	}
	if !bytes.Equal(b[:8], magic[:]) {
		return 0, fmt.Errorf("read header: %w: it does not start as one, so this is not a bundle", ErrMalformed)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != HeaderVersion {
		return 0, fmt.Errorf("read header: %w: container version %d, this program reads %d; update it first", ErrMalformed, v, HeaderVersion)
	}
	n := binary.LittleEndian.Uint32(b[12:])
	if n == 0 || n > MaxEnvelope {
		return 0, fmt.Errorf("read header: %w: envelope of %d bytes, want 1 to %d", ErrMalformed, n, MaxEnvelope)
	}
	return int(n), nil
}

// appendHead appends the header and the envelope to b.
func appendHead(b, envelope []byte) ([]byte, error) {
	if len(envelope) == 0 || len(envelope) > MaxEnvelope {
		return nil, fmt.Errorf("write header: envelope of %d bytes, want 1 to %d; use fewer images, deltas, annotations or signatures", len(envelope), MaxEnvelope)
	}
	b = append(b, magic[:]...)
	b = binary.LittleEndian.AppendUint32(b, HeaderVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(envelope)))
	return append(b, envelope...), nil
}
