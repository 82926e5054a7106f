// SPDX-License-Identifier: Apache-2.0

package blocks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	r.Read(b)
	return b
}

// The hash is written in bundles, so it never changes.
func TestSum(t *testing.T) {
	frame := noise(2*Size+100, 1)
	var inner []byte
	for _, part := range [][]byte{frame[:Size], frame[Size : 2*Size], frame[2*Size:]} {
		sum := sha256.Sum256(part)
		inner = append(inner, sum[:8]...)
	}
	sum := sha256.Sum256(inner)
	if got, want := Sum(frame), Hash(binary.LittleEndian.Uint64(sum[:])); got != want {
		t.Errorf("Sum = %x; want %x", got, want)
	}
	whole := noise(MaxFrame, 2)
	var hashes []Hash
	for b := range slices.Chunk(whole, Size) {
		hashes = append(hashes, SumBlock(b))
	}
	if Sum(whole) != Combine(hashes) {
		t.Error("Sum of the longest frame is not what Combine makes of its blocks")
	}
}

func TestScan(t *testing.T) {
	for _, size := range []int{0, 1, Size - 1, Size, Size + 1, 64 * Size, 65*Size + 7, 200 * Size} {
		b := noise(size, 3)
		var got, want []Hash
		if err := Scan(context.Background(), bytes.NewReader(b), int64(size), func(h Hash) { got = append(got, h) }); err != nil {
			t.Fatal(err)
		}
		for i := 0; i+Size <= size; i += Size {
			want = append(want, SumBlock(b[i:i+Size]))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d bytes: %d hashes; want %d", size, len(got), len(want))
		}
	}
	drop := func(Hash) {}
	if err := Scan(context.Background(), bytes.NewReader(noise(Size, 1)), 2*Size, drop); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that is shorter: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Scan(ctx, bytes.NewReader(noise(Size, 1)), Size, drop); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// What is found is there, and what is there is found, at the first place.
func TestSearchFindsWhatIsThere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perFrame := rapid.IntRange(1, 5).Draw(t, "blocks in a frame")
		// Few different blocks, so that frames repeat and overlap.
		image := func(what string) []Hash {
			return rapid.SliceOfN(rapid.Map(rapid.IntRange(0, 2), func(i int) Hash { return Hash(i) }), 0, 40).Draw(t, what)
		}
		sources := [][]Hash{image("a"), image("b")}
		target := image("target")
		var frames []Hash
		var content [][]Hash
		for f := range slices.Chunk(target, perFrame) {
			if len(f) == perFrame {
				frames, content = append(frames, Combine(f)), append(content, f)
			}
		}
		s := NewSearch(int64(perFrame)*Size, slices.Values(frames))
		for i, src := range sources {
			in := s.In(i)
			for _, h := range src {
				in(h)
			}
		}
		for i, want := range content {
			at := Place{-1, 0}
			for k, src := range sources {
				for b := 0; b+perFrame <= len(src) && at.Source < 0; b++ {
					if slices.Equal(src[b:b+perFrame], want) {
						at = Place{k, int64(b) * Size}
					}
				}
			}
			got, ok := s.Find(frames[i])
			if ok != (at.Source >= 0) || ok && got != at {
				t.Fatalf("frame %d: %v, %v; want %v", i, got, ok, at)
			}
		}
		if _, ok := s.Find(Hash(77)); ok {
			t.Fatal("found what nobody looked for")
		}
	})
}

// A search takes memory for the frames, and none for the source.
func TestSearchIsBounded(t *testing.T) {
	frames := make([]Hash, 1<<16)
	for i := range frames {
		frames[i] = Hash(i) * 0x9e3779b97f4a7c15
	}
	s := NewSearch(4*Size, slices.Values(frames))
	in := s.In(0)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range 1 << 18 { // 1 GiB
		in(Hash(i))
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
		t.Errorf("%d bytes allocated", n)
	}
}

func TestRanges(t *testing.T) {
	pieces := []Range{{10, 5}, {15, 5}, {20, 0}, {23, 2}, {30, 1}, {50, 0}, {60, 1}}
	for gap, want := range map[int64][]Range{
		0:   {{10, 10}, {23, 2}, {30, 1}, {60, 1}},
		3:   {{10, 15}, {30, 1}, {60, 1}},
		5:   {{10, 21}, {60, 1}},
		100: {{10, 51}},
	} {
		if got := slices.Collect(Ranges(slices.Values(pieces), gap)); !slices.Equal(got, want) {
			t.Errorf("gap %d: %v; want %v", gap, got, want)
		}
	}
	if got := slices.Collect(Ranges(slices.Values([]Range{{5, 0}}), 0)); got != nil {
		t.Errorf("no bytes: %v", got)
	}
	for range Ranges(slices.Values(pieces), 0) {
		break // stops when told
	}
}

// Every piece is in a range, ranges are further apart than the gap, and no range
// begins or ends with what nobody wants.
func FuzzRanges(f *testing.F) {
	f.Add([]byte{0, 5, 0, 5, 3, 2}, int64(1))
	f.Add([]byte{9, 0, 255, 255, 0, 1}, int64(0))
	f.Fuzz(func(t *testing.T, b []byte, gap int64) {
		if gap < 0 {
			return
		}
		var pieces []Range
		at := int64(0)
		for p := range slices.Chunk(b, 2) {
			if len(p) == 2 {
				at += int64(p[0])
				pieces = append(pieces, Range{at, int64(p[1])})
				at += int64(p[1])
			}
		}
		ranges := slices.Collect(Ranges(slices.Values(pieces), gap))
		for i, r := range ranges {
			if r.Length <= 0 || i > 0 && r.Offset-ranges[i-1].End() <= gap {
				t.Fatalf("ranges %v with gap %d", ranges, gap)
			}
			begins := slices.ContainsFunc(pieces, func(p Range) bool { return p.Length > 0 && p.Offset == r.Offset })
			ends := slices.ContainsFunc(pieces, func(p Range) bool { return p.Length > 0 && p.End() == r.End() })
			if !begins || !ends {
				t.Fatalf("range %v of %v begins or ends nowhere", r, pieces)
			}
		}
		for _, p := range pieces {
			in := slices.ContainsFunc(ranges, func(r Range) bool { return r.Offset <= p.Offset && p.End() <= r.End() })
			if p.Length > 0 && !in {
				t.Fatalf("%v is in none of %v", p, ranges)
			}
		}
	})
}
