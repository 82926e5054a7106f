// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// EntrySize is the length of one entry of a recipe table:
// docs/bundle-format.md#recipe-table.
const EntrySize = 4 + DigestSize

// maxLength is what an entry of any table has room for beside its encoding.
const maxLength = 1<<24 - 1

// Encoding says how a chunk's bytes are to be read.
type Encoding uint8

// The encodings. Their numbers are in recipe tables and never change.
const (
	// Zero: the chunk is all zeros and has no bytes.
	Zero Encoding = 0
	// Raw: the bytes are the chunk.
	Raw Encoding = 1
	// Zstd: one zstd frame.
	Zstd Encoding = 2
	// Patch: a patch of package bundle/delta against the recipe's source.
	Patch Encoding = 3
	// Prefixed: one zstd frame with the image's bytes before the chunk as dictionary.
	Prefixed Encoding = 4
)

func (e Encoding) String() string {
	switch e {
	case Zero:
		return "zero"
	case Raw:
		return "raw"
	case Zstd:
		return "zstd"
	case Patch:
		return "patch"
	case Prefixed:
		return "zstd with prefix"
	}
	return fmt.Sprintf("encoding %d", uint8(e))
}

// An Entry says where the encoded bytes of one chunk are, and what they are.
type Entry struct {
	Kind   Encoding
	Offset int64 // in the payload
	Length int
	Digest Digest // of the encoded bytes
}

// Order yields the numbers of n chunks in the order in which they lie in a
// recipe's data and are written to a slot: 1 to n-1, then 0. The first block of
// a slot is cleared first and written last, so that a half-written slot cannot
// be mistaken for a file system.
func Order(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := 1; i < n; i++ {
			if !yield(i) {
				return
			}
		}
		if n > 0 {
			yield(0)
		}
	}
}

// ParseChunks checks an image's chunk table against its digest and returns the
// digest of every chunk. The result shares no memory with b.
func ParseChunks(img *Image, b []byte) ([]Digest, error) {
	b, err := img.open(img.Chunks, b, nil)
	if err != nil {
		return nil, fmt.Errorf("read chunk table of image %q: %w", img.Class, err)
	}
	if len(b) != img.ChunkCount()*DigestSize {
		return nil, fmt.Errorf("read chunk table of image %q: %w: %d bytes for %d chunks", img.Class, ErrMalformed, len(b), img.ChunkCount())
	}
	digests := make([]Digest, len(b)/DigestSize)
	for i := range digests {
		digests[i] = Digest(b[i*DigestSize:])
	}
	return digests, nil
}

// ParseTable checks a recipe's table against its digest and returns one entry
// for each chunk, in the order of the chunks. The encoded chunks fill the
// recipe's data exactly.
func ParseTable(img *Image, r *Recipe, b []byte) ([]Entry, error) {
	entries, err := parseTable(img, r, b)
	if err != nil {
		return nil, fmt.Errorf("read table of %s recipe of image %q: %w", r.Kind, img.Class, err)
	}
	return entries, nil
}

func parseTable(img *Image, r *Recipe, b []byte) ([]Entry, error) {
	b, err := img.open(r.Table, b, nil)
	if err != nil {
		return nil, err
	}
	n := img.ChunkCount()
	if r.Kind == KindBlocks || len(b) != n*EntrySize {
		return nil, malformed("%d bytes for %d chunks", len(b), n)
	}
	entries := make([]Entry, n)
	next := r.Data.Offset
	for i := range Order(n) {
		raw := b[i*EntrySize:]
		word := binary.LittleEndian.Uint32(raw)
		e := Entry{Kind: Encoding(word >> 24), Offset: next, Length: int(word & maxLength), Digest: Digest(raw[4:])}
		if err := e.validate(r, i, img.ChunkLength(i), img.overhead()); err != nil {
			return nil, fmt.Errorf("chunk %d: %w", i, err)
		}
		entries[i] = e
		next += int64(e.Length)
	}
	if got := next - r.Data.Offset; got != r.Data.Length {
		return nil, malformed("chunks fill %d bytes of %d", got, r.Data.Length)
	}
	return entries, nil
}

// validate checks the entry of chunk i, whose encoded bytes are longer by overhead
// if there are any.
func (e Entry) validate(r *Recipe, i, chunk, overhead int) error {
	ok, n := false, e.Length-overhead
	switch e.Kind {
	case Zero:
		ok = e.Length == 0 && e.Digest == Sum(nil)
	case Raw:
		ok = n == chunk
	case Zstd:
		ok = n > 0 && n < chunk
	case Patch:
		if r.Kind != KindDelta {
			return malformed("a patch in a %s recipe", r.Kind)
		}
		ok = n > 0 && n < chunk
	case Prefixed:
		if r.Prefix == 0 || i < firstPrefixed {
			return malformed("%v, but there is no prefix", e.Kind)
		}
		ok = n > 0 && n < chunk
	default:
		return malformed("unknown %v", e.Kind)
	}
	if !ok {
		return malformed("%v of %d bytes for a chunk of %d", e.Kind, e.Length, chunk)
	}
	return nil
}

// appendEntry appends e to a recipe table.
func appendEntry(b []byte, e Entry) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(e.Kind)<<24|uint32(e.Length))
	return append(b, e.Digest[:]...)
}

// check tells whether b is what the table pins.
func (t Table) check(b []byte) error {
	if int64(len(b)) != t.Length {
		return fmt.Errorf("%w: %d bytes, the manifest says %d", ErrEncoded, len(b), t.Length)
	}
	if got := Sum(b); got != t.Digest {
		return fmt.Errorf("%w: digest is %v, the manifest says %v", ErrEncoded, got, t.Digest)
	}
	return nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}
