// SPDX-License-Identifier: Apache-2.0

package deflate

import (
	"bytes"
	"encoding/binary"
)

// Next finds where the next deflate stream may begin in b, at from or behind
// it: after the header of a gzip member, of a zlib stream or of an entry of a
// zip archive. It returns len(b) if there is none. What it finds may be no
// stream: a header is a few bytes that also occur by chance.
func Next(b []byte, from int) int {
	for at := from; at < len(b); at++ {
		// All three begin with one of few bytes.
		switch b[at] {
		case 0x1f:
			if n := gzipHeader(b[at:]); n > 0 {
				return at + n
			}
		case 'P':
			if n := zipHeader(b[at:]); n > 0 {
				return at + n
			}
		case 0x78: // deflate with a window of 32 KiB
			if at+2 < len(b) && b[at+1]&0x20 == 0 && binary.BigEndian.Uint16(b[at:])%31 == 0 && b[at+2]>>1&3 == dynamic {
				return at + 2
			}
		}
	}
	return len(b)
}

// gzipHeader is the length of the header of a gzip member (RFC 1952), 0 if b begins with none.
func gzipHeader(b []byte) int {
	const (
		length   = 10
		crc      = 1 << 1
		extra    = 1 << 2
		name     = 1 << 3
		comment  = 1 << 4
		reserved = 0xe0
		longest  = 1 << 10 // of a name or a comment
	)
	if len(b) < length || b[1] != 0x8b || b[2] != 8 || b[3]&reserved != 0 {
		return 0
	}
	at := length
	if b[3]&extra != 0 {
		if at+2 > len(b) {
			return 0
		}
		at += 2 + int(binary.LittleEndian.Uint16(b[at:]))
	}
	for _, flag := range []byte{name, comment} {
		if b[3]&flag == 0 {
			continue
		}
		if at > len(b) {
			return 0
		}
		n := bytes.IndexByte(b[at:min(len(b), at+longest)], 0)
		if n < 0 {
			return 0
		}
		at += n + 1
	}
	if b[3]&crc != 0 {
		at += 2
	}
	if at >= len(b) {
		return 0
	}
	return at
}

// zipHeader is the length of the local header of a zip entry, 0 if b begins with none.
func zipHeader(b []byte) int {
	const length = 30
	if len(b) < length || b[1] != 'K' || b[2] != 3 || b[3] != 4 || binary.LittleEndian.Uint16(b[8:]) != 8 {
		return 0
	}
	n := length + int(binary.LittleEndian.Uint16(b[26:])) + int(binary.LittleEndian.Uint16(b[28:]))
	if n >= len(b) {
		return 0
	}
	return n
}
