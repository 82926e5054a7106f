// SPDX-License-Identifier: Apache-2.0

package delta_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"
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

// plain puts before instructions what makes them a patch.
func plain(instructions []byte) []byte { return append([]byte{1}, instructions...) }

func numbers(v ...uint64) (b []byte) {
	for _, n := range v {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// The worked example of docs/delta.md.
func TestExample(t *testing.T) {
	src := []byte("The quick brown fox jumps over the lazy dog.")
	target := []byte("A: quick brown oox !")
	patch := plain(delta.Encode(target, src, [3]int{3, 19, 1}))
	dst := make([]byte, 20)
	if err := delta.Apply(dst, patch, fence{t, src}, int64(len(src))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dst, target) {
		t.Errorf("Apply = %q; want %q", dst, target)
	}
	doc, err := os.ReadFile("../../docs/delta.md")
	if err != nil {
		t.Fatal(err)
	}
	if line := fmt.Sprintf("```\n% x\n```", patch); !strings.Contains(string(doc), line) {
		t.Errorf("docs/delta.md does not show the patch: %s", line)
	}
}

func TestMalformed(t *testing.T) {
	src := make([]byte, 100)
	craft := func(f func(c *delta.Crafter)) []byte { return plain(delta.Craft(8, src, f)) }
	valid := craft(func(c *delta.Crafter) { c.Literal("").CopyAt(8, 50) })
	tests := map[string][]byte{
		"empty":                 nil,
		"other version":         append([]byte{3}, valid[1:]...),
		"no instruction":        plain(nil),
		"code cut off":          plain(bytes.Repeat([]byte{255}, 3)),
		"trailing byte":         append(bytes.Clone(valid), 1),
		"trailing zero":         append(bytes.Clone(valid), 0),
		"many trailing zeros":   append(bytes.Clone(valid), make([]byte, 100)...),
		"empty instruction":     craft(func(c *delta.Crafter) { c.Length(0).Copy(0) }),
		"too much":              craft(func(c *delta.Crafter) { c.Length(0).Copy(9).Recent(0).Blocks(0, 9) }),
		"too much together":     craft(func(c *delta.Crafter) { c.Literal("abc").Copy(6).Recent(0).Blocks(0, 6) }),
		"literal too long":      craft(func(c *delta.Crafter) { c.Length(9) }),
		"literal far too long":  craft(func(c *delta.Crafter) { c.Length(math.MaxUint64) }),
		"copy far too long":     craft(func(c *delta.Crafter) { c.Literal("a").Copy(math.MaxUint64) }),
		"no such alignment":     craft(func(c *delta.Crafter) { c.Length(0).Copy(8).Recent(9) }),
		"before the source":     craft(func(c *delta.Crafter) { c.Literal("").CopyAt(8, -1) }),
		"behind the source":     craft(func(c *delta.Crafter) { c.Literal("").CopyAt(8, 93) }),
		"far behind":            craft(func(c *delta.Crafter) { c.Length(0).Copy(8).Recent(8).Shift(math.MaxUint64 - 1) }),
		"far before":            craft(func(c *delta.Crafter) { c.Length(0).Copy(8).Recent(8).Shift(math.MaxUint64) }),
		"difference behind it":  craft(func(c *delta.Crafter) { c.Length(0).Copy(8).Recent(0).Blocks(2, 8) }),
		"instruction left over": append(bytes.Clone(valid), 1, 2, 3, 4, 5, 6, 7, 8),
	}
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
	patch := plain(delta.Craft(4, nil, func(c *delta.Crafter) { c.Literal("").CopyAt(4, size-4) }))
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
	a := new(delta.Applier)
	rnd := rand.New(rand.NewPCG(3, 4))
	dst := make([]byte, len(target))
	for i := range 900 {
		bad := bytes.Clone(patch)
		at := rnd.IntN(len(bad))
		if i < 200 {
			at = i % min(100, len(bad))
		}
		switch i % 4 {
		case 0:
			bad[at] ^= byte(1 + rnd.IntN(255))
		case 1:
			bad = bad[:at]
		case 2:
			bad = append(bad[:at], bad[min(len(bad), at+1+rnd.IntN(8)):]...)
		case 3:
			bad = append(bad, noise(uint64(i), 1+rnd.IntN(8))...)
		}
		if err := a.Apply(dst, bad, fence{t, src}, int64(len(src))); err == nil && len(bad) > len(patch) {
			t.Errorf("patch with %d bytes more is accepted", len(bad)-len(patch))
		}
	}
	if err := a.Apply(dst, patch, fence{t, src}, int64(len(src))); err != nil || !bytes.Equal(dst, target) {
		t.Errorf("the intact patch fails after damaged ones: %v", err)
	}
}
