// SPDX-License-Identifier: Apache-2.0

package delta_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/updaterd/updaterd/bundle/delta"
)

// fence is a source that fails the test when it is read outside its limits.
type fence struct {
	t    testing.TB
	data []byte
}

func (f fence) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at > int64(len(f.data))-int64(len(b)) {
		f.t.Errorf("read of %d bytes at %d of a source of %d", len(b), at, len(f.data))
		return 0, io.EOF
	}
	return copy(b, f.data[at:]), nil
}

// assemble makes a patch of streams that are stored as they are.
func assemble(streams ...[]byte) []byte {
	p := []byte{1}
	for _, s := range streams {
		p = binary.AppendUvarint(p, uint64(len(s)))
		p = binary.AppendUvarint(p, uint64(len(s)))
	}
	for _, s := range streams {
		p = append(p, s...)
	}
	return p
}

func numbers(v ...uint64) (b []byte) {
	for _, n := range v {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// The worked example of docs/delta.md.
func TestExample(t *testing.T) {
	src := []byte("The quick brown fox jumps over the lazy dog.")
	patch := assemble(
		numbers(3, 16, 1, 0), // 3 literal + 16 copied, 1 literal
		numbers(2),           // the copy begins at 3 + 1 = 4
		numbers(12),          // 12 copied bytes are right, the next are a word
		numbers(18),          // to which 9 is added
		[]byte("A: !"),
	)
	dst := make([]byte, 20)
	if err := delta.Apply(dst, patch, fence{t, src}, int64(len(src))); err != nil {
		t.Fatal(err)
	}
	if want := "A: quick brown oox !"; string(dst) != want {
		t.Errorf("Apply = %q; want %q", dst, want)
	}
}

func TestMalformed(t *testing.T) {
	none := []byte(nil)
	long := bytes.Repeat([]byte{0xff}, 10)
	valid := assemble(numbers(0, 8), numbers(0), none, none, none)
	tests := map[string][]byte{
		"empty":                     none,
		"other version":             append([]byte{2}, valid[1:]...),
		"header cut off":            valid[:6],
		"stream cut off":            valid[:len(valid)-1],
		"trailing byte":             append(bytes.Clone(valid), 0),
		"stream too long":           append([]byte{1}, numbers(1<<40, 1<<40)...),
		"encoded longer":            {1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 8, 8},
		"encoded empty":             {1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"not zstd":                  {1, 9, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2},
		"number not shortest":       assemble([]byte{0, 0x88, 0}, numbers(0), none, none, none),
		"number too long":           assemble(append([]byte{0}, long...), numbers(0), none, none, none),
		"no instruction":            assemble(none, none, none, none, none),
		"empty instruction":         assemble(numbers(0, 0, 0, 8), numbers(0), none, none, none),
		"too little":                assemble(numbers(0, 7), numbers(0), none, none, none),
		"too much":                  assemble(numbers(0, 9), numbers(0), none, none, none),
		"literal too long":          assemble(numbers(9, 0), none, none, none, make([]byte, 9)),
		"lengths wrap":              assemble(numbers(1, math.MaxUint64), numbers(0), none, none, none),
		"no shift":                  assemble(numbers(0, 8), none, none, none, none),
		"shift left over":           assemble(numbers(0, 8), numbers(0, 0), none, none, none),
		"instruction left over":     assemble(numbers(0, 8, 0, 1), numbers(0), none, none, none),
		"literal missing":           assemble(numbers(8, 0), none, none, none, make([]byte, 7)),
		"literal left over":         assemble(numbers(0, 8), numbers(0), none, none, make([]byte, 1)),
		"before the source":         assemble(numbers(0, 8), numbers(1), none, none, none),
		"behind the source":         assemble(numbers(0, 8), numbers(2*93), none, none, none),
		"far behind":                assemble(numbers(0, 8), numbers(math.MaxUint64-1), none, none, none),
		"far before":                assemble(numbers(0, 8), numbers(math.MaxUint64), none, none, none),
		"word missing":              assemble(numbers(0, 8), numbers(0), numbers(0), none, none),
		"word left over":            assemble(numbers(0, 8), numbers(0), none, numbers(2), none),
		"word too large":            assemble(numbers(0, 8), numbers(0), numbers(0), numbers(1<<32), none),
		"difference behind the end": assemble(numbers(0, 8), numbers(0), numbers(8), numbers(2), none),
		"gap too large":             assemble(numbers(0, 8), numbers(0), numbers(math.MaxUint64), numbers(2), none),
	}
	src := make([]byte, 100)
	if err := delta.Apply(make([]byte, 8), valid, fence{t, src}, 100); err != nil {
		t.Errorf("Apply(valid patch) = %v", err)
	}
	for name, patch := range tests {
		t.Run(name, func(t *testing.T) {
			err := delta.Apply(make([]byte, 8), patch, fence{t, src}, 100)
			if !errors.Is(err, delta.ErrMalformed) {
				t.Errorf("Apply = %v; want ErrMalformed", err)
			}
		})
	}
}

// A stream of zeros decompresses a thousandfold: it must stop at its stated length.
func TestBomb(t *testing.T) {
	x := newIndex(t, nil)
	patch, err := x.Patch(bytes.Repeat([]byte{7}, delta.MaxTarget), 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(patch) > 2000 {
		t.Fatalf("patch of one repeated byte has %d bytes", len(patch))
	}
	for _, n := range []int{0, 1000, delta.MaxTarget - 1} {
		if err := delta.Apply(make([]byte, n), patch, fence{t, nil}, 0); !errors.Is(err, delta.ErrMalformed) {
			t.Errorf("Apply to %d bytes = %v; want ErrMalformed", n, err)
		}
	}
}

func TestSource(t *testing.T) {
	src := noise(20, 200_000)
	x := newIndex(t, src)
	target := append(bytes.Clone(src[150_000:]), src[:150_000]...)
	patch, err := x.Patch(target, 0)
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, len(target))
	t.Run("another content", func(t *testing.T) {
		other := bytes.Clone(src)
		other[1234] ^= 1
		if err := delta.Apply(dst, patch, fence{t, other}, int64(len(src))); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(dst, target) {
			t.Error("the changed source made no difference")
		}
	})
	t.Run("stated shorter", func(t *testing.T) {
		if err := delta.Apply(dst, patch, fence{t, src[:len(src)-1]}, int64(len(src))-1); !errors.Is(err, delta.ErrMalformed) {
			t.Errorf("Apply = %v; want ErrMalformed", err)
		}
	})
	t.Run("shorter than stated", func(t *testing.T) {
		err := delta.Apply(dst, patch, bytes.NewReader(src[:len(src)-1]), int64(len(src)))
		if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, delta.ErrMalformed) {
			t.Errorf("Apply = %v; want ErrUnexpectedEOF", err)
		}
	})
	t.Run("size out of range", func(t *testing.T) {
		for _, n := range []int64{-1, math.MaxInt64} {
			if err := delta.Apply(dst, patch, fence{t, src}, n); err == nil {
				t.Errorf("Apply with a source of %d bytes: no error", n)
			}
		}
	})
	t.Run("chunk too long", func(t *testing.T) {
		if err := delta.Apply(make([]byte, delta.MaxTarget+1), patch, fence{t, src}, int64(len(src))); err == nil {
			t.Error("no error")
		}
	})
}

// A copy may lie beyond 4 GiB; only a sparse source has to have the bytes.
func TestFarSource(t *testing.T) {
	const size = 5 << 30
	patch := assemble(numbers(0, 4), numbers(2*(size-4)), nil, nil, nil)
	dst := make([]byte, 4)
	src := io.NewSectionReader(ending{}, 0, size)
	if err := delta.Apply(dst, patch, src, size); err != nil || string(dst) != "last" {
		t.Errorf("Apply = %q, %v; want the last bytes of the source", dst, err)
	}
}

// ending is a huge source that ends in "last" at 5 GiB and is zero before.
type ending struct{}

func (ending) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	if at == 5<<30-4 {
		copy(b, "last")
	}
	return len(b), nil
}

// Damage anywhere in a patch is an error or gives other bytes, never a panic.
func TestDamage(t *testing.T) {
	src := program(300, nil)
	target := append(noise(21, 300), program(300, map[int]int{5: 3, 70: 12, 200: 30})...)
	patch, err := newIndex(t, src).Patch(target, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, err := delta.NewApplier()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	rnd := rand.New(rand.NewPCG(3, 4))
	dst := make([]byte, len(target))
	for i := range 3000 {
		bad := bytes.Clone(patch)
		at := rnd.IntN(len(bad))
		if i < 200 {
			at = i % min(100, len(bad))
		}
		switch i % 3 {
		case 0:
			bad[at] ^= byte(1 + rnd.IntN(255))
		case 1:
			bad = bad[:at]
		case 2:
			bad = append(bad[:at], bad[min(len(bad), at+1+rnd.IntN(8)):]...)
		}
		if err := a.Apply(dst, bad, fence{t, src}, int64(len(src))); err == nil && len(bad) != len(patch) {
			t.Errorf("patch cut at %d is accepted", at)
		}
	}
	if err := a.Apply(dst, patch, fence{t, src}, int64(len(src))); err != nil || !bytes.Equal(dst, target) {
		t.Errorf("the intact patch fails after damaged ones: %v", err)
	}
}
