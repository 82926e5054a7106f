// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/updaterd/updaterd/bundle/blocks"
	"github.com/updaterd/updaterd/bundle/seal"
)

// FrameEntrySize is the length of one entry in the table of a blocks recipe:
// docs/bundle-format.md#frame-table.
const FrameEntrySize = 4 + 8 + frameDigestSize

// frameDigestSize is enough: whoever wants other bytes for an entry that was
// signed has to find a second preimage, and what they decode to is compared with
// the whole digest of the chunk.
const frameDigestSize = 16

// A Frame is a piece of a chunk that can be had on its own.
type Frame struct {
	Kind   Encoding
	Offset int64 // of its encoded bytes, in the payload
	Length int
	// Content is what to look for in other images. It is a hint.
	Content blocks.Hash
	digest  [frameDigestSize]byte // of the encoded bytes
}

// Range is where the encoded bytes are.
func (f Frame) Range() blocks.Range { return blocks.Range{Offset: f.Offset, Length: int64(f.Length)} }

// Is reports whether enc are the frame's encoded bytes.
func (f Frame) Is(enc []byte) bool { return f.check(enc) == nil }

// check tells whether enc are the frame's encoded bytes.
func (f Frame) check(enc []byte) error {
	if len(enc) != f.Length {
		return fmt.Errorf("%w: %d bytes, the table says %d", ErrEncoded, len(enc), f.Length)
	}
	if sum := Sum(enc); [frameDigestSize]byte(sum[:]) != f.digest {
		return fmt.Errorf("%w: digest is %v, the table says sha256:%x…", ErrEncoded, sum, f.digest)
	}
	return nil
}

// A FrameTable is the table of a blocks recipe, as it is in the bundle: it takes
// the memory of the table and 16 bytes for each chunk.
type FrameTable struct {
	img   *Image
	r     *Recipe
	table []byte
	spans []frameSpan // of the chunks
}

type frameSpan struct {
	entry int   // the number of the first frame's
	data  int64 // where the first frame's encoded bytes are, in the payload
}

// FrameCount is the number of frames of chunk i in a blocks recipe.
func (img *Image) FrameCount(r *Recipe, i int) int {
	return int((int64(img.ChunkLength(i))-1)/r.Frame + 1)
}

// FrameLength is the length of frame k of chunk i in a blocks recipe.
func (img *Image) FrameLength(r *Recipe, i, k int) int {
	return int(min(r.Frame, int64(img.ChunkLength(i))-int64(k)*r.Frame))
}

// ParseFrames checks the table of a blocks recipe against its digest, and keeps
// it: it may be large, so one that is sealed is opened in place. Chunks are the
// digests of the image's chunks: those that are all zeros have no entries.
func ParseFrames(img *Image, r *Recipe, chunks []Digest, b []byte) (*FrameTable, error) {
	t := &FrameTable{img: img, r: r, table: b, spans: make([]frameSpan, len(chunks))}
	if err := t.parse(chunks); err != nil {
		return nil, fmt.Errorf("read table of %s recipe of image %q: %w", r.Kind, img.Class, err)
	}
	return t, nil
}

func (t *FrameTable) parse(chunks []Digest) error {
	if t.r.Kind != KindBlocks || len(chunks) != t.img.ChunkCount() {
		return malformed("it is none of frames, or of another image")
	}
	var err error
	if t.table, err = t.img.open(t.r.Table, t.table, t.table[:0]); err != nil {
		return err
	}
	zero := zeroDigests(t.img)
	entries := 0
	for i, d := range chunks {
		t.spans[i].entry = -1
		if d != zero(i) {
			t.spans[i].entry = entries
			entries += t.img.FrameCount(t.r, i)
		}
	}
	if len(t.table) != entries*FrameEntrySize {
		return malformed("%d bytes for %d frames", len(t.table), entries)
	}
	next := t.r.Data.Offset
	for i := range Order(len(chunks)) {
		t.spans[i].data = next
		for k, f := range t.Frames(i) {
			if err := f.validate(t.r, i, k, t.img.FrameLength(t.r, i, k), t.img.overhead()); err != nil {
				return fmt.Errorf("chunk %d, frame %d: %w", i, k, err)
			}
			next += int64(f.Length)
		}
	}
	if got := next - t.r.Data.Offset; got != t.r.Data.Length {
		return malformed("frames fill %d bytes of %d", got, t.r.Data.Length)
	}
	return nil
}

// Frames yields the frames of chunk i; none if it is all zeros.
func (t *FrameTable) Frames(i int) iter.Seq2[int, Frame] {
	return func(yield func(int, Frame) bool) {
		span := t.spans[i]
		if span.entry < 0 {
			return
		}
		next := span.data
		for k := range t.img.FrameCount(t.r, i) {
			f := parseFrame(t.table[(span.entry+k)*FrameEntrySize:], next)
			if !yield(k, f) {
				return
			}
			next += int64(f.Length)
		}
	}
}

// Frame is frame k of chunk i. One that is not there has no bytes, and lies where
// the next one does.
func (t *FrameTable) Frame(i, k int) Frame {
	span := t.spans[i]
	if span.entry < 0 {
		return Frame{Offset: span.data}
	}
	n := t.img.FrameCount(t.r, i)
	next, entries := span.data, t.table[span.entry*FrameEntrySize:]
	for range min(k, n) {
		next += int64(binary.LittleEndian.Uint32(entries) & maxLength)
		entries = entries[FrameEntrySize:]
	}
	if k >= n {
		return Frame{Offset: next}
	}
	return parseFrame(entries, next)
}

// Encoded has the table used as it is in the bundle. One that is sealed is so only
// meanwhile, in place, and nobody else may look at it then.
func (t *FrameTable) Encoded(use func([]byte) error) error {
	if t.img.key == nil {
		return use(t.table)
	}
	at := t.r.Table.Offset
	sealed := seal.Seal(t.img.key, t.table[:0], t.table, at)
	err := use(sealed)
	var unopened error
	t.table, unopened = t.img.key.Open(sealed[:0], sealed, at)
	return errors.Join(err, unopened)
}

// entry is what the table has of frame k of chunk i, which is not all zeros.
func (t *FrameTable) entry(i, k int) []byte {
	return t.table[(t.spans[i].entry+k)*FrameEntrySize:][:FrameEntrySize]
}

// Zero tells whether chunk i is all zeros.
func (t *FrameTable) Zero(i int) bool { return t.spans[i].entry < 0 }

// Contents yields what to look for in other images: the hash of every frame
// that may lie there and is not all zeros.
func (t *FrameTable) Contents() iter.Seq[blocks.Hash] {
	return func(yield func(blocks.Hash) bool) {
		for i := range t.spans {
			for k, f := range t.Frames(i) {
				// A shorter one at the end is not found at the steps of a search.
				whole := int64(t.img.FrameLength(t.r, i, k)) == t.r.Frame
				if f.Kind != Zero && whole && !yield(f.Content) {
					return
				}
			}
		}
	}
}

// missing yields where the frames are that a search did not find, in the order of
// the data.
func (t *FrameTable) missing(found *blocks.Search) iter.Seq[blocks.Range] {
	return func(yield func(blocks.Range) bool) {
		for i := range Order(len(t.spans)) {
			for _, f := range t.Frames(i) {
				if _, ok := found.Find(f.Content); !ok && !yield(f.Range()) {
					return
				}
			}
		}
	}
}

func parseFrame(b []byte, offset int64) Frame {
	word := binary.LittleEndian.Uint32(b)
	return Frame{
		Kind: Encoding(word >> 24), Offset: offset, Length: int(word & maxLength),
		Content: blocks.Hash(binary.LittleEndian.Uint64(b[4:])), digest: [frameDigestSize]byte(b[12:]),
	}
}

func appendFrame(b []byte, f Frame) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(f.Kind)<<24|uint32(f.Length))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.Content))
	return append(b, f.digest[:]...)
}

// validate checks frame k of chunk i, which is n bytes long, and whose encoded
// bytes are longer by overhead if there are any.
func (f Frame) validate(r *Recipe, i, k, n, overhead int) error {
	ok, length := false, f.Length-overhead
	switch f.Kind {
	case Zero:
		ok = f.check(nil) == nil
	case Raw:
		ok = length == n
	case Zstd:
		ok = length > 0 && length < n
	case Prefixed:
		if r.Prefix == 0 || i == 0 || i == 1 && k == 0 {
			return malformed("%v, but there is no prefix", f.Kind)
		}
		ok = length > 0 && length < n
	default:
		return malformed("unknown %v", f.Kind)
	}
	if !ok {
		return malformed("%v of %d bytes for a frame of %d", f.Kind, f.Length, n)
	}
	return nil
}

// zeroDigests returns what tells the digest that a chunk has if it is all zeros.
func zeroDigests(img *Image) func(i int) Digest {
	last := img.ChunkCount() - 1
	whole, end := zeroDigest(img.ChunkLength(0)), zeroDigest(img.ChunkLength(last))
	return func(i int) Digest {
		if i == last {
			return end
		}
		return whole
	}
}
