// SPDX-License-Identifier: Apache-2.0

package imagediff

import (
	"bytes"
	"encoding/binary"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/updaterd/updaterd/bundle/fsmap"
)

// contentsRandom is for what does not compress though no known program compressed it.
const contentsRandom = "random"

// magics begin files of which a small change changes everything behind it.
var magics = []struct{ kind, magic string }{
	{"gzip", "\x1f\x8b\x08"}, {"xz", "\xfd7zXZ\x00"}, {"zstd", "\x28\xb5\x2f\xfd"}, {"bzip2", "BZh"},
	{"lz4", "\x04\x22\x4d\x18"}, {"lz4", "\x02\x21\x4c\x18"}, {"lzma", "\x5d\x00\x00"}, {"lzop", "\x89LZO"},
	{"zip or jar", "PK\x03\x04"}, {"squashfs", "hsqs"},
}

const (
	// headSize is how much of a file is looked at.
	headSize = 1 << 20
	// minRandom is the shortest file of which a measurement tells anything.
	minRandom = 4 << 10
)

// contents is the kind of a file's contents if it is one that makes deltas
// large, else "". What cost nothing is not looked at.
func contents(s *side, f *fsmap.File, cost int64) string {
	if cost == 0 || len(f.Pieces) == 0 {
		return ""
	}
	b := head(s, f, headSize)
	if kind := magic(b); kind != "" {
		return kind
	}
	// An initrd may begin with a plain archive of microcode.
	if bytes.HasPrefix(b, []byte("070701")) {
		if _, rest, found := bytes.Cut(b, []byte("TRAILER!!!")); found {
			if kind := magic(bytes.TrimLeft(rest, "\x00")); kind != "" {
				return "initrd, " + kind
			}
		}
	}
	if len(b) >= minRandom && incompressible(b) {
		return contentsRandom
	}
	return ""
}

func magic(b []byte) string {
	for _, m := range magics {
		if bytes.HasPrefix(b, []byte(m.magic)) {
			return m.kind
		}
	}
	return ""
}

// head reads the first bytes of a file, as far as they are there.
func head(s *side, f *fsmap.File, limit int64) []byte {
	var b []byte
	limit = min(limit, f.Size)
	for _, p := range f.Pieces {
		at := len(b)
		n := min(p.Length, limit-int64(at))
		if n <= 0 {
			break
		}
		b = append(b, make([]byte, n)...)
		if _, err := io.ReadFull(io.NewSectionReader(s, p.Offset, n), b[at:]); err != nil {
			return b[:at]
		}
	}
	return b
}

var encoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic("internal error: " + err.Error()) // the options are constant
	}
	return e
})

func incompressible(b []byte) bool {
	return len(encoder().EncodeAll(b, nil)) > len(b)-len(b)/50
}

// gzipTime is the time that the header of a gzip file holds.
func gzipTime(b []byte) (seconds uint32, ok bool) {
	if len(b) < 10 || magic(b) != "gzip" {
		return 0, false
	}
	return binary.LittleEndian.Uint32(b[4:]), true
}
