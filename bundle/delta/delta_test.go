// SPDX-License-Identifier: Apache-2.0

package delta_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/updaterd/updaterd/bundle/delta"
)

const chunkSize = 1 << 20

// noise returns n bytes that do not compress, the same for the same seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	rand.NewChaCha8(key).Read(b)
	return b
}

func newIndex(t testing.TB, src []byte) *delta.Index {
	t.Helper()
	x, err := delta.NewIndex(bytes.NewReader(src), int64(len(src)), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// tb is what testing.TB and *rapid.T have in common here.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// roundTrip makes target of src, chunk by chunk, and returns the patches.
func roundTrip(t tb, x *delta.Index, src, target []byte, chunk int) [][]byte {
	t.Helper()
	a := new(delta.Applier)
	var patches [][]byte
	for off := 0; off < len(target); off += chunk {
		want := target[off:min(off+chunk, len(target))]
		patch, err := x.Patch(want, int64(off))
		if err != nil {
			t.Fatalf("Patch(%d bytes at %d) = %v", len(want), off, err)
		}
		got := bytes.Repeat([]byte{0xa5}, len(want))
		if err := a.Apply(got, patch, bytes.NewReader(src), int64(len(src))); err != nil {
			t.Fatalf("Apply(patch of %d bytes at %d) = %v", len(patch), off, err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("chunk at %d differs after the round trip", off)
		}
		patches = append(patches, patch)
	}
	return patches
}

func size(patches [][]byte) (n int) {
	for _, p := range patches {
		n += len(p)
	}
	return n
}

// mutate changes a copy of src in the ways in which one image becomes another.
func mutate(t *rapid.T, src []byte) []byte {
	b := bytes.Clone(src)
	for range rapid.IntRange(0, 12).Draw(t, "changes") {
		at := rapid.IntRange(0, len(b)).Draw(t, "at")
		end := min(len(b), at+rapid.IntRange(0, 5000).Draw(t, "length"))
		piece := bytes.Clone(b[at:end])
		switch rapid.SampledFrom([]string{"insert", "delete", "flip", "move", "zero", "add", "truncate"}).Draw(t, "change") {
		case "insert":
			fresh := noise(rapid.Uint64().Draw(t, "seed"), len(piece)+1)
			b = append(b[:at:at], append(fresh, b[at:]...)...)
		case "delete":
			b = append(b[:at:at], b[end:]...)
		case "flip":
			if at < len(b) {
				b[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			}
		case "move":
			b = append(b[:at:at], b[end:]...)
			to := rapid.IntRange(0, len(b)).Draw(t, "to")
			b = append(b[:to:to], append(piece, b[to:]...)...)
		case "zero":
			clear(b[at:end])
		case "add": // as addresses change when code moves
			for i := at; i+4 <= end; i += 24 {
				b[i] += 0xf0
			}
		case "truncate":
			b = b[:max(at, len(b)/2)]
		}
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		src := noise(rapid.Uint64().Draw(t, "source"), rapid.IntRange(0, 60_000).Draw(t, "size"))
		if rapid.Bool().Draw(t, "repetitive") {
			src = bytes.Repeat(src[:min(len(src), 100)], 1+len(src)/100)
		}
		target := mutate(t, src)
		x, err := delta.NewIndex(bytes.NewReader(src), int64(len(src)), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		roundTrip(t, x, src, target, rapid.SampledFrom([]int{1, 31, 4096, 10_000, chunkSize}).Draw(t, "chunk"))
	})
}

func TestShapes(t *testing.T) {
	src := noise(1, 3*chunkSize+12345)
	tests := map[string]struct{ src, target []byte }{
		"both empty":          {nil, nil},
		"empty source":        {nil, noise(2, 100_000)},
		"empty target":        {src, nil},
		"one byte":            {src, src[:1]},
		"same":                {src, src},
		"source much larger":  {src, src[2*chunkSize+7 : 2*chunkSize+50_000]},
		"target much larger":  {src[:40_000], bytes.Repeat(src[:50_000], 50)},
		"short source":        {src[:31], src},
		"zeros from noise":    {src[:chunkSize], make([]byte, chunkSize)},
		"noise from zeros":    {make([]byte, chunkSize), src[:chunkSize]},
		"halves swapped":      {src, append(bytes.Clone(src[chunkSize:]), src[:chunkSize]...)},
		"nothing in common":   {src, noise(3, 2*chunkSize+1)},
		"last chunk is short": {src, src[:2*chunkSize+17]},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			roundTrip(t, newIndex(t, tt.src), tt.src, tt.target, chunkSize)
		})
	}
}

// A file is mapped, a reader is read: both must give the same patches.
func TestFileSource(t *testing.T) {
	src := noise(4, 300_000)
	path := filepath.Join(t.TempDir(), "old.img")
	if err := os.WriteFile(path, src, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	x, err := delta.NewIndex(f, int64(len(src)), nil)
	if err != nil {
		t.Fatal(err)
	}
	target := append(noise(5, 1000), src...)
	fromFile := roundTrip(t, x, src, target, chunkSize)
	fromMemory := roundTrip(t, newIndex(t, src), src, target, chunkSize)
	for i := range fromFile {
		if !bytes.Equal(fromFile[i], fromMemory[i]) {
			t.Errorf("patch %d depends on where the source is", i)
		}
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
	if _, err := delta.NewIndex(f, int64(len(src))+1, nil); err == nil {
		t.Error("NewIndex of a file shorter than stated: no error")
	}
}
