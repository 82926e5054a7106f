// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// framesOf makes a blocks recipe of an image of whole chunks, each of two
// frames, with this table; a chunk without frames is all zeros.
func framesOf(chunks ...[]Frame) (img *Image, r *Recipe, digests []Digest, table []byte) {
	const chunk = 2 * MinFrame
	r = &Recipe{Kind: KindBlocks, Frame: MinFrame, Prefix: 1000, Data: Extent{Offset: 500}}
	img = &Image{Class: "rootfs", Size: int64(len(chunks)) * chunk, ChunkSize: chunk}
	for i, frames := range chunks {
		d := Sum([]byte{byte(i)})
		if frames == nil {
			d = Sum(make([]byte, chunk))
		}
		digests = append(digests, d)
		for _, f := range frames {
			table = appendFrame(table, f)
			r.Data.Length += int64(f.Length)
		}
	}
	r.Table = Table{Extent{Length: int64(len(table))}, Sum(table)}
	return img, r, digests, table
}

func testFrames() (zero, raw, zstd, prefixed Frame) {
	sum := Sum(nil)
	zero = Frame{Kind: Zero, Content: 1, digest: [frameDigestSize]byte(sum[:])}
	raw = Frame{Kind: Raw, Length: MinFrame, Content: 2}
	zstd = Frame{Kind: Zstd, Length: 10, Content: 3}
	prefixed = Frame{Kind: Prefixed, Length: 9, Content: 1<<63 + 4, digest: [frameDigestSize]byte{15: 7}}
	return zero, raw, zstd, prefixed
}

func TestFrameTable(t *testing.T) {
	zero, raw, zstd, prefixed := testFrames()
	img, r, digests, b := framesOf([]Frame{zstd, raw}, []Frame{zero, prefixed}, nil, []Frame{prefixed, prefixed})
	table, err := ParseFrames(img, r, digests, b)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]Frame{{zstd, raw}, {zero, prefixed}, nil, {prefixed, prefixed}}
	offsets := [][]int64{{500 + 27, 500 + 37}, {500, 500}, nil, {500 + 9, 500 + 18}} // chunk 0 lies last
	for i := range want {
		n := 0
		for k, f := range table.Frames(i) {
			w := want[i][k]
			if w.Offset = offsets[i][k]; f != w {
				t.Errorf("chunk %d, frame %d = %+v; want %+v", i, k, f, w)
			}
			n++
		}
		if n != len(want[i]) || table.Zero(i) != (want[i] == nil) {
			t.Errorf("chunk %d has %d frames", i, n)
		}
	}
	contents := slices.Collect(table.Contents())
	if len(contents) != 5 || slices.Contains(contents, zero.Content) {
		t.Errorf("contents = %v; want those of five frames that are not zeros", contents)
	}

	with := func(f Frame, edit func(f *Frame)) Frame { edit(&f); return f }
	for name, f := range map[string]Frame{
		"patch":              with(zstd, func(f *Frame) { f.Kind = Patch }),
		"unknown":            with(zstd, func(f *Frame) { f.Kind = 5 }),
		"empty":              with(zstd, func(f *Frame) { f.Length = 0 }),
		"as long as a frame": with(zstd, func(f *Frame) { f.Length = MinFrame }),
		"longest length":     with(zstd, func(f *Frame) { f.Length = 1<<24 - 1 }),
		"raw too short":      with(raw, func(f *Frame) { f.Length-- }),
		"raw too long":       with(raw, func(f *Frame) { f.Length++ }),
		"zero with bytes":    with(zero, func(f *Frame) { f.Length = 1 }),
		"zero with a digest": with(zero, func(f *Frame) { f.digest[0]++ }),
		"prefix of nothing":  prefixed, // in chunk 0, and first in chunk 1
	} {
		img, r, digests, b := framesOf([]Frame{zstd, f})
		if name != "prefix of nothing" {
			img, r, digests, b = framesOf([]Frame{zstd, raw}, []Frame{zstd, f})
		}
		if got, err := ParseFrames(img, r, digests, b); got != nil || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: ParseFrames = %v, %v; want ErrMalformed", name, got, err)
		}
	}
	img, r, digests, b = framesOf([]Frame{zstd, raw}, []Frame{prefixed, raw})
	if _, err := ParseFrames(img, r, digests, b); !errors.Is(err, ErrMalformed) {
		t.Errorf("prefix of the first frame of chunk 1: %v; want ErrMalformed", err)
	}
	for name, edit := range map[string]func(img *Image, r *Recipe, d []Digest){
		"frames leave bytes over":     func(_ *Image, r *Recipe, _ []Digest) { r.Data.Length++ },
		"frames need more bytes":      func(_ *Image, r *Recipe, _ []Digest) { r.Data.Length-- },
		"entries for a zero chunk":    func(img *Image, _ *Recipe, d []Digest) { d[0] = Sum(make([]byte, img.ChunkSize)) },
		"no entries for another":      func(_ *Image, _ *Recipe, d []Digest) { d[1][0]++ },
		"prefix, and there is none":   func(_ *Image, r *Recipe, _ []Digest) { r.Prefix = 0 },
		"an image that is longer":     func(img *Image, _ *Recipe, _ []Digest) { img.Size -= MinFrame },
		"frames of another recipe":    func(_ *Image, r *Recipe, _ []Digest) { r.Frame *= 2 },
		"table is not the pinned one": func(_ *Image, r *Recipe, _ []Digest) { r.Table.Digest[0]++ },
	} {
		img, r, digests, b := framesOf([]Frame{zstd, raw}, nil, []Frame{prefixed, raw})
		edit(img, r, digests)
		want := ErrMalformed
		if strings.Contains(name, "pinned") {
			want = ErrEncoded
		}
		if got, err := ParseFrames(img, r, digests, b); got != nil || !errors.Is(err, want) {
			t.Errorf("%s: ParseFrames = %v, %v; want %v", name, got, err, want)
		}
	}
}

// A table that is accepted fills the data exactly and says the same when it is written again.
func FuzzFrames(f *testing.F) {
	zero, raw, zstd, prefixed := testFrames()
	_, r, _, b := framesOf([]Frame{zstd, raw}, nil, []Frame{prefixed, zero})
	f.Add(b, uint16(2), int64(6*MinFrame), r.Data.Length, int64(1000))
	f.Add(b, uint16(2), int64(5*MinFrame+7), r.Data.Length, int64(0))
	f.Fuzz(func(t *testing.T, b []byte, zeros uint16, size, data, prefix int64) {
		img := &Image{Class: "rootfs", Size: size, ChunkSize: 2 * MinFrame}
		if size < 1 || img.ChunkCount() > 16 || data < 0 || data > size || prefix < 0 || prefix > MaxPrefix {
			return
		}
		r := &Recipe{Kind: KindBlocks, Frame: MinFrame, Prefix: prefix, Table: Table{Extent{0, int64(len(b))}, Sum(b)}, Data: Extent{50, data}}
		digests := make([]Digest, img.ChunkCount())
		for i := range digests {
			if zeros>>i&1 == 1 {
				digests[i] = Sum(make([]byte, img.ChunkLength(i)))
			}
		}
		table, err := ParseFrames(img, r, digests, b)
		if err != nil {
			if table != nil || !errors.Is(err, ErrMalformed) {
				t.Fatalf("ParseFrames = %v, %v", table, err)
			}
			return
		}
		next := int64(50)
		for i := range Order(len(digests)) {
			for k, f := range table.Frames(i) {
				n := img.FrameLength(r, i, k)
				if f.Offset != next || f.Length < 0 || f.Length > n || f.Kind == Prefixed && (prefix == 0 || i == 0) {
					t.Fatalf("chunk %d, frame %d = %+v of %d bytes", i, k, f, n)
				}
				if got := table.Frame(i, k); got != f {
					t.Fatalf("chunk %d, frame %d = %+v on its own, %+v in order", i, k, got, f)
				}
				next += int64(f.Length)
			}
			if got := table.Frame(i, img.FrameCount(r, i)); got != (Frame{Offset: next}) {
				t.Fatalf("behind chunk %d = %+v, want no bytes at %d", i, got, next)
			}
		}
		var again []byte
		for i := range digests {
			for _, f := range table.Frames(i) {
				again = appendFrame(again, f)
			}
		}
		if !bytes.Equal(again, b) || next != 50+data {
			t.Fatalf("data ends at %d; %x\n%x", next, again, b)
		}
	})
}

// blocksTest is a bundle with a blocks recipe, and the image in it.
func blocksTest(t *testing.T, deltas ...SourceSpec) (dir string, f *File, image []byte) {
	t.Helper()
	dir = t.TempDir()
	spec := testSpec(t, dir)
	spec.Blocks = true
	spec.ChunkSize = 64 << 10
	image = slices.Concat(text(200<<10, 1), noise(100<<10, 2), make([]byte, 300<<10), text(150_000, 3), noise(100<<10, 4), text(77_777, 5))
	spec.Images[0].Path = writeFile(t, dir, "image", image)
	spec.Images[0].Deltas = deltas
	out := filepath.Join(dir, "test.upb")
	var notes []string
	spec.Note = func(s string) { notes = append(notes, s) }
	if err := Build(context.Background(), out, spec); err != nil {
		t.Fatal(err)
	}
	all := strings.Join(notes, "\n")
	for _, want := range []string{`"rootfs": the blocks recipe adds `, `"bootloader": the blocks recipe is left out`} {
		if !strings.Contains(all, want) {
			t.Errorf("notes = %q; want %q", all, want)
		}
	}
	return dir, openTest(t, out), image
}

func TestBlocks(t *testing.T) {
	dir, f, image := blocksTest(t)
	img := f.Manifest.Image("rootfs")
	r := img.Blocks()
	if r == nil || len(img.Recipes) != 2 || r.Frame != DefaultFrame || f.Manifest.Image("bootloader").Blocks() != nil {
		t.Fatalf("recipes = %+v", img.Recipes)
	}
	checked, err := f.Check(context.Background(), nil)
	if err != nil || checked[0].Kind != KindBlocks || checked[0].Decoded != img.ChunkCount() {
		t.Fatalf("Check = %+v, %v", checked, err)
	}
	digests, err := f.Chunks(img)
	if err != nil {
		t.Fatal(err)
	}
	b, err := f.read(nil, r.Table.Offset, r.Table.Length)
	if err != nil {
		t.Fatal(err)
	}
	table, err := ParseFrames(img, r, digests, b)
	if err != nil {
		t.Fatal(err)
	}
	kinds, frames := make(map[Encoding]int), 0
	for i := range digests {
		for _, f := range table.Frames(i) {
			kinds[f.Kind]++
			frames++
		}
	}
	for _, k := range []Encoding{Zero, Raw, Zstd, Prefixed} {
		if kinds[k] == 0 {
			t.Errorf("no frame is %v, so this test shows less than it should", k)
		}
	}
	if whole := (len(image)-1)/DefaultFrame + 1; frames >= whole {
		t.Errorf("%d entries for %d frames: chunks of zeros cost something", frames, whole)
	}

	// The image is found in pieces, moved by whole blocks.
	half := len(image) / 2 / DefaultFrame * DefaultFrame
	moved := slices.Concat(noise(3*4096, 8), image[half:], noise(4096, 9))
	front := slices.Concat(image[:half], noise(100, 9))
	for name, tc := range map[string]struct {
		sources  [][]byte
		missing  func(n int64) bool // of the data's bytes
		requests int
	}{
		"the image itself":  {[][]byte{image}, func(n int64) bool { return n < DefaultFrame }, 1},
		"two parts of it":   {[][]byte{front, moved}, func(n int64) bool { return n < 2*DefaultFrame }, 1},
		"one part of it":    {[][]byte{noise(5000, 1), moved}, func(n int64) bool { return n > r.Data.Length/4 && n < r.Data.Length*3/4 }, 2},
		"something else":    {[][]byte{noise(300_000, 7)}, func(n int64) bool { return n == r.Data.Length }, 1},
		"less than a block": {[][]byte{noise(3, 7)}, func(n int64) bool { return n == r.Data.Length }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var paths []string
			for i, s := range tc.sources {
				paths = append(paths, writeFile(t, dir, "source"+string(rune('a'+i)), s))
			}
			made := filepath.Join(dir, "made")
			a, err := f.Apply(context.Background(), "rootfs", paths, made, nil)
			if err != nil || !bytes.Equal(readFile(t, made), image) {
				t.Fatalf("Apply: %v, or another image", err)
			}
			fetched := a.Fetched - img.Chunks.Length - r.Table.Length
			if a.Recipe != 0 || a.Fallback != 0 || !tc.missing(fetched) || a.Requests > tc.requests {
				t.Errorf("Apply = %+v: %d of %d bytes of data", a, fetched, r.Data.Length)
			}
		})
	}
	made := filepath.Join(dir, "made")
	if a, err := f.Apply(context.Background(), "rootfs", nil, made, nil); err != nil || a.Recipe != 1 {
		t.Errorf("Apply without a source = %+v, %v; want the full recipe", a, err)
	}
}

// A blocks recipe of which it is known that it costs more than the full one is
// left out, and that is said.
func TestBlocksThatDoNotPay(t *testing.T) {
	// Frames do not see that far back, the full recipe does.
	part := noise(2*framePrefix, 2)
	repeats := slices.Concat(part, part, part, part)
	image := slices.Concat(noise(300<<10, 1), text(300<<10, 1))
	related := slices.Concat(noise(40<<10, 6), image[:200<<10], noise(400<<10, 3))
	unrelated := slices.Concat(noise(10, 6), image) // at no step of a search
	for name, tc := range map[string]struct {
		image   []byte
		sources [][]byte
		want    string
	}{
		"no source":         {image, nil, "adds"},
		"a related source":  {image, [][]byte{related}, "adds"},
		"an unrelated one":  {image, [][]byte{unrelated}, "left out: with it, a device that has the best"},
		"one of each":       {image, [][]byte{unrelated, related}, "adds"},
		"repeats far apart": {repeats, nil, "left out: a device that has half"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			spec := testSpec(t, dir)
			spec.Blocks, spec.ChunkSize = true, 64<<10
			spec.Images = spec.Images[:1]
			spec.Images[0].Path = writeFile(t, dir, "image", tc.image)
			spec.Images[0].Deltas = nil
			for i, src := range tc.sources {
				path := writeFile(t, dir, "source"+string(rune('a'+i)), src)
				spec.Images[0].Deltas = append(spec.Images[0].Deltas, SourceSpec{Path: path, BuildID: string(rune('a' + i))})
			}
			var notes []string
			spec.Note = func(s string) { notes = append(notes, s) }
			var done, total int64
			spec.Progress = func(d, all int64) { done, total = d, all }
			out := filepath.Join(dir, "test.upb")
			if err := Build(context.Background(), out, spec); err != nil {
				t.Fatal(err)
			}
			f := openTest(t, out)
			if got := f.Manifest.Images[0].Blocks() != nil; got != (tc.want == "adds") {
				t.Errorf("blocks recipe: %v", got)
			}
			if all := strings.Join(notes, "\n"); !strings.Contains(all, "the blocks recipe "+tc.want) && !strings.Contains(all, "the blocks recipe is "+tc.want) {
				t.Errorf("notes = %q; want %q", all, tc.want)
			}
			if done != total {
				t.Errorf("progress ends at %d of %d", done, total)
			}
		})
	}
}

// A source that is not what it was when it was searched costs the chunks that
// were made from it.
func TestBlocksFromATouchedSource(t *testing.T) {
	dir, f, image := blocksTest(t)
	img := f.Manifest.Image("rootfs")
	path := writeFile(t, dir, "source", image)
	out := filepath.Join(dir, "made")
	touch := func(done, _ int64) {
		if done == img.ChunkSize { // the first chunk is made, all frames were found
			b := readFile(t, path)
			b[3*img.ChunkSize+10] ^= 1
			b[13*img.ChunkSize+10] ^= 1
			writeFile(t, dir, "source", b)
		}
	}
	a, err := f.Apply(context.Background(), "rootfs", []string{path}, out, touch)
	if err != nil || !bytes.Equal(readFile(t, out), image) {
		t.Fatalf("Apply: %v, or another image", err)
	}
	if a.Fallback != 2 || a.FallbackBytes == 0 {
		t.Errorf("Apply = %+v; want two chunks from the bundle alone", a)
	}
}

// A delta for the very source is better, one for an image that is only as long is not.
func TestBlocksOrDelta(t *testing.T) {
	dir := t.TempDir()
	old := slices.Concat(text(200<<10, 1), noise(130<<10, 6), make([]byte, 270<<10), text(150_000, 3), noise(100<<10, 4), text(77_777, 5))
	_, f, image := blocksTest(t, SourceSpec{Path: writeFile(t, dir, "old", old), BuildID: "old"})
	other := bytes.Clone(old)
	other[5000]++
	for name, tc := range map[string]struct {
		sources [][]byte
		want    string
	}{
		"its source":             {[][]byte{old}, KindDelta},
		"its source, and others": {[][]byte{noise(9000, 1), old, other}, KindDelta},
		"one as long":            {[][]byte{other}, KindBlocks},
		"none":                   {nil, KindFull},
	} {
		var paths []string
		for i, s := range tc.sources {
			paths = append(paths, writeFile(t, dir, "source"+string(rune('a'+i)), s))
		}
		made := filepath.Join(dir, "made")
		a, err := f.Apply(context.Background(), "rootfs", paths, made, nil)
		if err != nil || !bytes.Equal(readFile(t, made), image) {
			t.Fatalf("%s: Apply: %v, or another image", name, err)
		}
		if got := f.Manifest.Image("rootfs").Recipes[a.Recipe].Kind; got != tc.want || a.Fallback != 0 {
			t.Errorf("%s: Apply = %+v by %s; want %s", name, a, got, tc.want)
		}
	}
}

// However large an image is, its frames are not too many.
func TestFrameOf(t *testing.T) {
	odd := &Recipe{Kind: KindBlocks, Frame: 3 * MinFrame}
	if err := odd.validateTable(&Image{Size: 1, ChunkSize: DefaultChunkSize}, 0); err == nil {
		t.Error("frames may be three blocks long")
	}
	for _, chunk := range []int64{MinChunkSize, DefaultChunkSize, MaxChunkSize} {
		for _, size := range []int64{1, DefaultFrame * MaxFrames, DefaultFrame*MaxFrames + 1, MaxChunks * chunk} {
			img := &Image{Size: min(size, MaxChunks*chunk), ChunkSize: chunk}
			r := &Recipe{Kind: KindBlocks, Frame: frameOf(img.Size, chunk)}
			if err := r.validateTable(img, 0); err != nil {
				t.Errorf("image of %d bytes in chunks of %d: frames of %d: %v", img.Size, chunk, r.Frame, err)
			}
		}
	}
}
