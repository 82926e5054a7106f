// SPDX-License-Identifier: Apache-2.0

package delta_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/updaterd/updaterd/bundle/delta"
)

// manual is a text of which another edition has another beginning and changes
// in the middle.
func manual(edition, n int) []byte {
	rnd := rand.New(rand.NewPCG(7, 7))
	var b bytes.Buffer
	fmt.Fprintf(&b, "edition %d of the manual, %s\n", edition, bytes.Repeat([]byte("new "), edition))
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d. option %x takes %d bytes and %x\n", i, rnd.Uint64(), rnd.IntN(1e6), rnd.Uint32())
		if i%400 == 50 {
			fmt.Fprintf(&b, "since edition %d\n", edition)
		}
	}
	return b.Bytes()
}

func gzipped(t testing.TB, level int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zlibbed(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// image has compressed files between others, as a file system would.
func image(t testing.TB, edition int) []byte {
	b := noise(40, 5000)
	b = append(b, gzipped(t, 9, manual(edition, 400_000))...)
	b = append(b, noise(41, 3000+edition)...)
	b = append(b, zlibbed(t, manual(edition, 60_000))...)
	b = append(b, gzipped(t, 6, []byte("the same in every edition"))...)
	for i := range 20 {
		b = append(b, noise(uint64(50+i), 100)...)
		b = append(b, gzipped(t, 9, append([]byte{byte(i)}, manual(edition, 8000)...))...)
	}
	return append(b, noise(42, 4000)...)
}

func indexBoth(t testing.TB, src, target []byte) *delta.Index {
	t.Helper()
	streams, err := delta.FindStreams(bytes.NewReader(target), int64(len(target)))
	if err != nil {
		t.Fatal(err)
	}
	x, err := delta.NewIndex(bytes.NewReader(src), int64(len(src)), streams)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

func TestCompressedFilesAreSmall(t *testing.T) {
	src, target := image(t, 1), image(t, 2)
	plain := size(roundTrip(t, newIndex(t, src), src, target, chunkSize))
	got := size(roundTrip(t, indexBoth(t, src, target), src, target, chunkSize))
	t.Logf("image %d bytes; patch %d bytes, without expanded blocks %d", len(target), got, plain)
	if got*8 > plain {
		t.Errorf("patch has %d bytes; want at most an eighth of %d", got, plain)
	}
}

// Streams begin in one chunk and end in another; what of them lies in one chunk
// as a whole is still expanded.
func TestStreamsAcrossChunks(t *testing.T) {
	src, target := image(t, 1), image(t, 2)
	x := indexBoth(t, src, target)
	plain := size(roundTrip(t, newIndex(t, src), src, target, 64<<10))
	got := size(roundTrip(t, x, src, target, 64<<10))
	if got*10 > plain*7 {
		t.Errorf("patches of 64 KiB chunks have %d bytes; want at most 0.7 of %d", got, plain)
	}
	for _, chunk := range []int{511, 4096, 10_000} {
		roundTrip(t, x, src, target, chunk)
	}
}

// What the index knows of the target helps and is not believed: another image
// than the one that was looked at still comes out right.
func TestOtherTarget(t *testing.T) {
	src, target := image(t, 1), image(t, 2)
	x := indexBoth(t, src, target)
	for i := 0; i < len(target); i += 4999 {
		target[i] ^= 0x10
	}
	roundTrip(t, x, src, target, chunkSize)
	roundTrip(t, x, src, image(t, 3), chunkSize)
	roundTrip(t, x, src, nil, chunkSize)
}

func expandedPatch(t testing.TB) (src, target, patch []byte) {
	src, target = image(t, 1), image(t, 2)
	patch, err := indexBoth(t, src, target).Patch(target, 0)
	if err != nil {
		t.Fatal(err)
	}
	if patch[0] != 2 {
		t.Fatalf("patch has version %d; want 2, with expanded blocks", patch[0])
	}
	return src, target, patch
}

// A slot is longer than the image in it.
func TestLongerSource(t *testing.T) {
	src, target, patch := expandedPatch(t)
	src = append(src, noise(60, 5000)...)
	dst := make([]byte, len(target))
	if err := delta.Apply(dst, patch, fence{t, src}, int64(len(src))); err != nil || !bytes.Equal(dst, target) {
		t.Errorf("Apply = %v; the chunk differs", err)
	}
}

// A touched source is an error or gives other bytes.
func TestTouchedStream(t *testing.T) {
	src, target, patch := expandedPatch(t)
	a := new(delta.Applier)
	dst := make([]byte, len(target))
	noticed := 0
	for at := 5100; at < 120_000; at += 1009 {
		bad := bytes.Clone(src)
		bad[at] ^= 0xff
		err := a.Apply(dst, patch, fence{t, bad}, int64(len(bad)))
		switch {
		case err == nil && bytes.Equal(dst, target):
			t.Errorf("byte %d of the source made no difference", at)
		case errors.Is(err, delta.ErrSource):
			noticed++
		case err != nil && !errors.Is(err, delta.ErrMalformed):
			t.Errorf("byte %d: Apply = %v", at, err)
		}
	}
	if noticed == 0 {
		t.Error("no damage was recognised as another source")
	}
}

func TestDamagedExpansion(t *testing.T) {
	src, target, patch := expandedPatch(t)
	a := new(delta.Applier)
	dst := make([]byte, len(target))
	rnd := rand.New(rand.NewPCG(5, 6))
	for i := range 600 {
		bad := bytes.Clone(patch)
		at := rnd.IntN(len(bad))
		if i%2 == 0 {
			at = rnd.IntN(150)
		}
		if bad[at] ^= byte(1 + rnd.IntN(255)); i%3 == 0 {
			bad = bad[:at]
		}
		if err := a.Apply(dst, bad, fence{t, src}, int64(len(src))); err == nil && bytes.Equal(dst, target) && i%2 == 1 && i%3 != 0 {
			t.Errorf("damage at %d makes no difference", at)
		}
	}
	if err := a.Apply(dst, patch, fence{t, src}, int64(len(src))); err != nil || !bytes.Equal(dst, target) {
		t.Errorf("the intact patch fails after damaged ones: %v", err)
	}
}

// head makes a patch of expanded blocks for a chunk that is copied as it is.
func head(length uint64, base uint64, sources []uint64, runs []uint64) []byte {
	b := append([]byte{2}, numbers(length, base, uint64(len(sources)/2))...)
	b = append(b, numbers(sources...)...)
	b = append(b, numbers(uint64(len(runs)/2))...)
	return append(b, numbers(runs...)...)
}

func TestMalformedExpansion(t *testing.T) {
	src := make([]byte, 200)
	// A stored block of 3 bytes: header, padding, 3, its complement, the bytes.
	copy(src[10:], []byte{1, 3, 0, 0xfc, 0xff, 'a', 'b', 'c'})
	// Expanded: 01, 3 in two bytes, "abc".
	valid := func() []byte {
		// One edge from the literals, the block from the pool (position 200), one edge.
		b := head(8, 200, []uint64{2 * 80, 64}, []uint64{0, 8})
		return append(b, delta.Craft(8, append(bytes.Clone(src), 1, 3, 0, 'a', 'b', 'c'), func(c *delta.Crafter) { c.Literal("\x01").CopyAt(6, 199).Literal("\x01").Copy(0) })...)
	}
	dst := make([]byte, 8)
	if err := delta.Apply(dst, valid(), fence{t, src}, 200); err != nil || !bytes.Equal(dst, src[10:18]) {
		t.Fatalf("Apply(valid patch) = %v, %x", err, dst)
	}
	literal := func(b string) []byte {
		return delta.Craft(len(b), src, func(c *delta.Crafter) { c.Literal(b).Copy(0) })
	}
	all := literal("\x01\x01\x03\x00abc\x01")
	copied := func(align int64) []byte {
		return delta.Craft(8, src, func(c *delta.Crafter) { c.Literal("").CopyAt(8, align) })
	}
	edges := func(first, last byte) []byte {
		return literal(string([]byte{first, 1, 3, 0, 'a', 'b', 'c', last}))
	}
	tests := map[string]struct {
		patch []byte
		want  error
	}{
		"no head":                  {[]byte{2}, delta.ErrMalformed},
		"no runs":                  {append(head(8, 200, nil, nil), all...), delta.ErrMalformed},
		"length over the limit":    {append(head(1<<21, 200, nil, []uint64{0, 8}), all...), delta.ErrMalformed},
		"base behind the source":   {append(head(8, 201, nil, []uint64{0, 8}), all...), delta.ErrMalformed},
		"blocks behind the source": {append(head(8, 200, []uint64{2 * 1599, 64}, []uint64{0, 8}), all...), delta.ErrMalformed},
		"blocks before the source": {append(head(8, 200, []uint64{1, 64}, []uint64{0, 8}), all...), delta.ErrMalformed},
		"empty blocks":             {append(head(8, 200, []uint64{160, 0}, []uint64{0, 8}), all...), delta.ErrMalformed},
		"no block there":           {append(head(8, 200, []uint64{2 * 88, 64}, []uint64{0, 8}), all...), delta.ErrSource},
		"block ends elsewhere":     {append(head(8, 200, []uint64{160, 63}, []uint64{0, 8}), all...), delta.ErrSource},
		"many sources":             {append([]byte{2}, numbers(8, 200, 1<<40)...), delta.ErrMalformed},
		"many runs":                {append([]byte{2}, numbers(8, 200, 0, 1<<40)...), delta.ErrMalformed},
		"run behind the chunk":     {append(head(8, 200, nil, []uint64{1, 8}), all...), delta.ErrMalformed},
		"run of edges only":        {append(head(8, 200, nil, []uint64{0, 2}), all...), delta.ErrMalformed},
		"gap over the chunk":       {append(head(20, 200, nil, []uint64{12, 8}), literal(string(make([]byte, 20)))...), delta.ErrMalformed},
		"chunk too short":          {append(head(7, 200, nil, []uint64{0, 7}), literal("\x01\x01\x02\x00ab\x01")...), delta.ErrSource},
		"chunk too long":           {append(head(9, 200, nil, []uint64{0, 9}), literal("\x01\x01\x04\x00abcd\x01")...), delta.ErrSource},
		"no first edge":            {append(head(8, 200, nil, []uint64{0, 8}), edges(0, 1)...), delta.ErrSource},
		"no last edge":             {append(head(8, 200, nil, []uint64{0, 8}), edges(1, 0)...), delta.ErrSource},
		"last edge of some bits":   {append(head(8, 200, nil, []uint64{0, 8}), edges(1, 5)...), delta.ErrSource},
		"copy across the base":     {append(head(8, 200, []uint64{160, 64}, []uint64{0, 8}), copied(196)...), delta.ErrMalformed},
		"copy behind the pool":     {append(head(8, 200, []uint64{160, 64}, []uint64{0, 8}), copied(200)...), delta.ErrMalformed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := delta.Apply(dst, tt.patch, fence{t, src}, 200); !errors.Is(err, tt.want) {
				t.Errorf("Apply = %v; want %v", err, tt.want)
			}
		})
	}
}

// Streams are found in pieces of the image at the same time; where the pieces
// meet must not show.
func TestStreamsAcrossPieces(t *testing.T) {
	const piece = 16 << 20
	file1, file2 := gzipped(t, 9, manual(1, 100_000)), gzipped(t, 9, manual(2, 100_000))
	for _, before := range []int{1, 9, 11, 5000, len(file2) + 1} {
		target := make([]byte, piece+200_000)
		copy(target[piece-before:], file2)
		src := append(make([]byte, 1000), file1...)
		x := indexBoth(t, src, target)
		at := (piece - before) &^ (chunkSize - 1)
		if before < 100 { // mostly in the chunk behind the border, which begins within the stream
			at = piece - before
		}
		patch, err := x.Patch(target[at:at+chunkSize/8+5000], int64(at))
		if before > 5000 || before < 100 {
			if err != nil || len(patch) > len(file2)/4 {
				t.Errorf("stream %d bytes before the border: patch of %d bytes, %v; want at most a quarter of %d", before, len(patch), err, len(file2))
			}
		}
	}
}

func FuzzExpanded(f *testing.F) {
	small1, small2 := gzipped(f, 9, manual(1, 3000)), gzipped(f, 9, manual(2, 3000))
	f.Add(append(noise(1, 50), small1...), append(noise(1, 40), small2...), uint16(0))
	f.Add(append(noise(1, 50), small1...), append(noise(1, 40), small2...), uint16(700))
	f.Fuzz(func(t *testing.T, src, target []byte, chunk uint16) {
		x := indexBoth(t, src, target)
		n := int(chunk)
		if n == 0 {
			n = max(1, len(target))
		}
		if len(target)/n > 100 || len(target) > delta.MaxTarget {
			return
		}
		roundTrip(t, x, src, target, n)
		if len(target) > 0 {
			patch, err := x.Patch(target, 0)
			if err != nil {
				t.Fatal(err)
			}
			patch[int(chunk)%len(patch)] ^= 1
			delta.Apply(make([]byte, len(target)), patch, fence{t, src}, int64(len(src)))
		}
	})
}
