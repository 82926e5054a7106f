// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestOrder(t *testing.T) {
	for n, want := range map[int][]int{0: nil, 1: {0}, 2: {1, 0}, 5: {1, 2, 3, 4, 0}} {
		if got := slices.Collect(Order(n)); !slices.Equal(got, want) {
			t.Errorf("Order(%d) = %v; want %v", n, got, want)
		}
	}
	for i := range Order(3) { // stops when told
		if i == 2 {
			break
		}
	}
}

// tableOf makes an image of len(entries) whole chunks and a recipe with this table.
func tableOf(kind string, entries ...Entry) (*Image, *Recipe, []byte) {
	var b []byte
	r := &Recipe{Kind: kind, Data: Extent{Offset: 1000}}
	for _, e := range entries {
		if e.Kind == Prefixed {
			r.Prefix = testChunk
		}
		b = appendEntry(b, e)
		r.Data.Length += int64(e.Length)
	}
	r.Table = Table{Extent{Length: int64(len(b))}, Sum(b)}
	return &Image{Class: "rootfs", Size: int64(len(entries)) * testChunk, ChunkSize: testChunk}, r, b
}

func TestTable(t *testing.T) {
	zero := Entry{Kind: Zero, Digest: Sum(nil)}
	raw := Entry{Kind: Raw, Length: testChunk, Digest: Sum([]byte("r"))}
	frame := Entry{Kind: Zstd, Length: 10, Digest: Sum([]byte("z"))}
	patch := Entry{Kind: Patch, Length: 7, Digest: Sum([]byte("p"))}
	prefixed := Entry{Kind: Prefixed, Length: 9, Digest: Sum([]byte("w"))}

	img, r, b := tableOf(KindDelta, frame, zero, raw, patch, prefixed)
	got, err := ParseTable(img, r, b)
	if err != nil {
		t.Fatal(err)
	}
	var offsets []int64
	for i, e := range got {
		offsets = append(offsets, e.Offset)
		want := []Entry{frame, zero, raw, patch, prefixed}[i]
		if e.Offset = 0; e != want {
			t.Errorf("entry %d = %v; want %v", i, e, want)
		}
	}
	if want := []int64{1000 + testChunk + 16, 1000, 1000, 1000 + testChunk, 1000 + testChunk + 7}; !slices.Equal(offsets, want) {
		t.Errorf("offsets = %v; want %v: chunk 0 lies last", offsets, want)
	}

	with := func(e Entry, edit func(e *Entry)) Entry { edit(&e); return e }
	for name, tc := range map[string]struct {
		kind  string
		entry Entry
	}{
		"unknown kind":           {KindDelta, with(raw, func(e *Entry) { e.Kind = 5 })},
		"highest kind":           {KindDelta, with(raw, func(e *Entry) { e.Kind = 255 })},
		"patch in a full recipe": {KindFull, patch},
		"empty patch":            {KindDelta, with(patch, func(e *Entry) { e.Length = 0 })},
		"patch of a chunk":       {KindDelta, with(patch, func(e *Entry) { e.Length = testChunk })},
		"empty frame":            {KindFull, with(frame, func(e *Entry) { e.Length = 0 })},
		"frame of a chunk":       {KindFull, with(frame, func(e *Entry) { e.Length = testChunk })},
		"no chunk before it":     {KindFull, prefixed},
		"longest length":         {KindFull, with(frame, func(e *Entry) { e.Length = 1<<24 - 1 })},
		"raw too short":          {KindFull, with(raw, func(e *Entry) { e.Length-- })},
		"raw too long":           {KindFull, with(raw, func(e *Entry) { e.Length++ })},
		"zero with bytes":        {KindFull, with(zero, func(e *Entry) { e.Length = 1 })},
		"zero with a digest":     {KindFull, with(zero, func(e *Entry) { e.Digest[0]++ })},
	} {
		img, r, b := tableOf(tc.kind, zero, tc.entry)
		if got, err := ParseTable(img, r, b); got != nil || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: ParseTable = %v, %v; want ErrMalformed", name, got, err)
		}
	}
	for name, edit := range map[string]func(e *Entry, r *Recipe){
		"empty frame with prefix":      func(e *Entry, _ *Recipe) { e.Length = 0 },
		"frame with prefix of a chunk": func(e *Entry, _ *Recipe) { e.Length = testChunk },
		"frame without the prefix":     func(_ *Entry, r *Recipe) { r.Prefix = 0 },
	} {
		e := prefixed
		edit(&e, new(Recipe))
		img, r, b := tableOf(KindFull, zero, zero, e)
		edit(&e, r)
		if got, err := ParseTable(img, r, b); got != nil || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: ParseTable = %v, %v; want ErrMalformed", name, got, err)
		}
	}
	for name, edit := range map[string]func(*Image, *Recipe, []byte) []byte{
		"chunks leave bytes over": func(_ *Image, r *Recipe, b []byte) []byte { r.Data.Length++; return b },
		"chunks need more bytes":  func(_ *Image, r *Recipe, b []byte) []byte { r.Data.Length--; return b },
		"more chunks than table":  func(img *Image, _ *Recipe, b []byte) []byte { img.Size++; return b },
	} {
		img, r, b := tableOf(KindFull, frame, raw)
		if got, err := ParseTable(img, r, edit(img, r, b)); got != nil || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: ParseTable = %v, %v; want ErrMalformed", name, got, err)
		}
	}
	// Bytes that are not the pinned ones are a matter of the link, not of the format.
	for name, edit := range map[string]func(b []byte) []byte{
		"flipped bit": func(b []byte) []byte { b[5] ^= 1; return b },
		"short":       func(b []byte) []byte { return b[1:] },
		"long":        func(b []byte) []byte { return append(b, 0) },
		"empty":       func(b []byte) []byte { return nil },
	} {
		img, r, b := tableOf(KindFull, frame, raw)
		if got, err := ParseTable(img, r, edit(b)); got != nil || !errors.Is(err, ErrEncoded) {
			t.Errorf("%s: ParseTable = %v, %v; want ErrEncoded", name, got, err)
		}
	}
}

func TestChunkTable(t *testing.T) {
	b := append(bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)...)
	img := &Image{Class: "rootfs", Size: testChunk + 1, ChunkSize: testChunk, Chunks: Table{Extent{0, 64}, Sum(b)}}
	got, err := ParseChunks(img, b)
	if err != nil || len(got) != 2 || got[0][0] != 1 || got[1][31] != 2 {
		t.Fatalf("ParseChunks = %v, %v", got, err)
	}
	b[0] = 9
	if got[0][0] != 1 {
		t.Error("the result shares memory with the input")
	}
	if got, err := ParseChunks(img, b); got != nil || !errors.Is(err, ErrEncoded) {
		t.Errorf("altered: ParseChunks = %v, %v; want ErrEncoded", got, err)
	}
	other := &Image{Class: "rootfs", Size: testChunk, ChunkSize: testChunk, Chunks: Table{Extent{0, 64}, Sum(b)}}
	if got, err := ParseChunks(other, b); got != nil || !errors.Is(err, ErrMalformed) {
		t.Errorf("more digests than chunks: ParseChunks = %v, %v; want ErrMalformed", got, err)
	}
}

func TestAnyTableComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var entries []Entry
		for range rapid.IntRange(1, 20).Draw(t, "chunks") {
			e := Entry{Kind: Encoding(rapid.IntRange(0, 4).Draw(t, "kind")), Digest: Sum(nil)}
			if e.Kind == Prefixed && len(entries) < firstPrefixed {
				e.Kind = Zstd
			}
			switch e.Kind {
			case Raw:
				e.Length = testChunk
			case Zstd, Patch, Prefixed:
				e.Length = rapid.IntRange(1, testChunk-1).Draw(t, "length")
			}
			if e.Kind != Zero {
				e.Digest = Sum([]byte{byte(len(entries))})
			}
			entries = append(entries, e)
		}
		img, r, b := tableOf(KindDelta, entries...)
		got, err := ParseTable(img, r, b)
		if err != nil {
			t.Fatal(err)
		}
		var again []byte
		for _, e := range got {
			again = appendEntry(again, e)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x\n%x", again, b)
		}
	})
}

// A table that is accepted fills the data exactly and says the same when it is written again.
func FuzzTable(f *testing.F) {
	_, _, b := tableOf(KindDelta, Entry{Kind: Zero, Digest: Sum(nil)}, Entry{Kind: Raw, Length: testChunk}, Entry{Kind: Patch, Length: 3})
	f.Add(b, int64(2*testChunk+5), int64(testChunk+3), int64(0), true)
	f.Add(b, int64(3*testChunk), int64(testChunk+3), int64(0), false)
	_, _, b = tableOf(KindFull, Entry{Kind: Zero, Digest: Sum(nil)}, Entry{Kind: Raw, Length: testChunk}, Entry{Kind: Prefixed, Length: 3})
	f.Add(b, int64(3*testChunk), int64(testChunk+3), int64(1), false)
	f.Add(b, int64(3*testChunk), int64(testChunk+3), int64(0), false)
	f.Fuzz(func(t *testing.T, b []byte, size, data, prefix int64, delta bool) {
		img := &Image{Class: "rootfs", Size: size, ChunkSize: testChunk}
		if size < 1 || img.ChunkCount() > 1000 || data < 0 || data > size {
			return
		}
		r := &Recipe{Kind: KindFull, Table: Table{Extent{0, int64(len(b))}, Sum(b)}, Data: Extent{50, data}, Prefix: prefix}
		if delta {
			r.Kind = KindDelta
		}
		entries, err := ParseTable(img, r, b)
		if err != nil {
			if entries != nil || !errors.Is(err, ErrMalformed) {
				t.Fatalf("ParseTable = %v, %v", entries, err)
			}
			return
		}
		var again []byte
		next := int64(50)
		for i := range Order(len(entries)) {
			e := entries[i]
			if e.Offset != next || e.Length > img.ChunkLength(i) || e.Length < 0 || e.Kind == Patch && !delta || e.Kind == Prefixed && (prefix == 0 || i < 2) {
				t.Fatalf("entry %d = %v", i, e)
			}
			next += int64(e.Length)
		}
		for _, e := range entries {
			again = appendEntry(again, e)
		}
		if !bytes.Equal(again, b) || next != 50+data {
			t.Fatalf("data ends at %d; %x\n%x", next, again, b)
		}
	})
}
