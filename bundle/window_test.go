// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Whatever is done with a window, a prefix is what the image has there, and
// nothing that is at hand is read.
func TestWindow(t *testing.T) {
	const chunk = MinChunkSize
	rapid.Check(t, func(t *rapid.T) {
		image := noise(rapid.IntRange(1, 12*chunk).Draw(t, "size"), 1)
		img := &Image{Size: int64(len(image)), ChunkSize: chunk}
		short, long := &Recipe{Prefix: rapid.Int64Range(0, 3*chunk).Draw(t, "prefix")}, &Recipe{Prefix: rapid.Int64Range(0, 5*chunk).Draw(t, "other prefix")}
		size := WindowSize(img, short, long)
		if size > max(short.Prefix, long.Prefix)+2*chunk {
			t.Fatalf("a window of %d bytes for prefixes of %d and %d", size, short.Prefix, long.Prefix)
		}
		w := NewWindow(img, noise(int(size)+rapid.IntRange(0, chunk-1).Draw(t, "more"), 2))
		part := func(i int) []byte { return image[i*chunk:][:img.ChunkLength(i)] }
		broken := errors.New("broken")
		kept := 0 // the chunks from here to the last one were kept, one after the other
		last := -1
		for range 30 {
			i := rapid.IntRange(0, img.ChunkCount()-1).Draw(t, "chunk")
			if rapid.Bool().Draw(t, "in order") {
				i = min(last+1, img.ChunkCount()-1)
			}
			r := short
			if rapid.Bool().Draw(t, "long") {
				r = long
			}
			if i >= firstPrefixed && rapid.Bool().Draw(t, "wanted") {
				read := 0
				fails := rapid.IntRange(0, 9).Draw(t, "fails") == 0
				got, err := w.Prefix(r, i, func(j int, b []byte) error {
					if read++; fails {
						copy(b, noise(len(b), 9))
						return broken
					}
					copy(b, part(j))
					return nil
				})
				if fails && read > 0 {
					if !errors.Is(err, broken) {
						t.Fatalf("Prefix: %v; want the error of read", err)
					}
					last = -1
					continue
				}
				from := max(chunk, i*chunk-int(r.Prefix))
				if err != nil || !bytes.Equal(got, image[from:i*chunk]) {
					t.Fatalf("chunk %d: Prefix = %d bytes, %v; want the %d before it", i, len(got), err, i*chunk-from)
				}
				if need := int((r.Prefix + chunk - 1) / chunk); i == last+1 && i-kept >= need && read > 0 {
					t.Fatalf("chunk %d: %d chunks were read, and all %d were at hand", i, read, need)
				}
			}
			place := w.Place(i)
			if len(place) != img.ChunkLength(i) {
				t.Fatalf("chunk %d has %d bytes, its place %d", i, img.ChunkLength(i), len(place))
			}
			if rapid.IntRange(0, 9).Draw(t, "bad") == 0 {
				copy(place, noise(len(place), 3))
				last = -1
				continue
			}
			copy(place, part(i))
			w.Keep(i)
			if i != last+1 || i == 0 {
				kept = max(1, i)
			}
			last = i
		}
	})
}

// Each chunk has the bytes before it, chunk 0 apart, and no more than it may.
func TestPrefix(t *testing.T) {
	dir := t.TempDir()
	spec := testSpec(t, dir)
	// Each chunk is noise that is found so many chunks before it, too.
	image := noise(20*testChunk, 1)
	again := map[int]int{2: 2, 4: 3, 6: 1, 9: 2, 13: 3, 17: 4}
	for i := range 20 {
		if back, ok := again[i]; ok {
			copy(image[i*testChunk:(i+1)*testChunk], image[(i-back)*testChunk:])
		}
	}
	spec.Images = []ImageSpec{{Class: "rootfs", Path: writeFile(t, dir, "image", image)}}
	for name, tc := range map[string]struct {
		prefix int64
		want   []int
	}{
		"none":                 {-1, nil},
		"one chunk":            {testChunk, []int{6}},
		"a chunk and a half":   {testChunk + testChunk/2, []int{6, 9}},
		"two chunks":           {2 * testChunk, []int{6, 9}},
		"three chunks":         {3 * testChunk, []int{4, 6, 9, 13}},
		"as many as there are": {MaxPrefix, []int{4, 6, 9, 13, 17}},
	} {
		t.Run(name, func(t *testing.T) {
			spec.Prefix = tc.prefix
			out := filepath.Join(t.TempDir(), "out")
			if err := Build(context.Background(), out, spec); err != nil {
				t.Fatal(err)
			}
			f := openTest(t, out)
			img := &f.Manifest.Images[0]
			entries, err := f.Table(img, img.Full())
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for i, e := range entries {
				if e.Kind == Prefixed {
					got = append(got, i)
				}
			}
			if !slices.Equal(got, tc.want) || img.Full().Prefix != max(0, tc.prefix) && got != nil {
				t.Errorf("chunks %v have a prefix of %d, want %v", got, img.Full().Prefix, tc.want)
			}
			if _, err := f.Check(context.Background(), nil); err != nil {
				t.Error(err)
			}
			made := filepath.Join(dir, "made")
			if _, err := f.Apply(context.Background(), "rootfs", nil, made, nil); err != nil || !bytes.Equal(readFile(t, made), image) {
				t.Errorf("Apply: %v, or another image", err)
			}
		})
	}
}
