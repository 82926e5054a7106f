// SPDX-License-Identifier: Apache-2.0

package deflate_test

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/updaterd/updaterd/bundle/delta/deflate"
)

// text is repetitive and not too much so.
func text(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "line %d says %x about %d\n", b.Len(), rnd.Uint32()>>rnd.IntN(30), rnd.IntN(50))
	}
	return b.Bytes()[:n]
}

func compress(t testing.TB, level int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// expand expands all blocks of a stream.
func expand(t testing.TB, b []byte) (blocks []byte, end int) {
	t.Helper()
	var x deflate.Expander
	for last := false; !last; {
		var err error
		if blocks, end, last, err = x.Expand(blocks, b, end, 1<<30); err != nil {
			t.Fatalf("Expand at bit %d of %d bytes = %v", end, len(b), err)
		}
	}
	return blocks, end
}

// pack puts blocks into n bytes; tail fills the last one.
func pack(dst, blocks []byte, tail byte) (int, error) {
	var p deflate.Packer
	p.Start(dst, 0, 0)
	for len(blocks) > 0 {
		var err error
		if blocks, err = p.Pack(blocks); err != nil {
			return 0, err
		}
	}
	return p.End(tail)
}

func TestRoundTrip(t *testing.T) {
	noise := make([]byte, 70_000)
	rand.NewChaCha8([32]byte{}).Read(noise)
	inputs := map[string][]byte{
		"empty": nil, "one byte": {7}, "text": text(1, 300_000), "zeros": make([]byte, 100_000), "noise": noise,
		"short": []byte("hello, hello, hello"),
	}
	for name, in := range inputs {
		for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
			t.Run(fmt.Sprintf("%s at level %d", name, level), func(t *testing.T) {
				b := compress(t, level, in)
				blocks, end := expand(t, b)
				if got := (end + 7) / 8; got != len(b) {
					t.Errorf("Expand ends at byte %d of %d", got, len(b))
				}
				dst := make([]byte, len(b))
				n, err := pack(dst, blocks, 0)
				if err != nil || !bytes.Equal(dst[:n], b) {
					t.Errorf("Pack = %v; it did not restore %d bytes", err, len(b))
				}
			})
		}
	}
}

// A block in the middle begins and ends within bytes, whose other bits are kept.
func TestMiddle(t *testing.T) {
	b := compress(t, 9, text(2, 400_000))
	var x deflate.Expander
	var bounds []int
	for at, last := 0, false; !last; {
		var err error
		bounds = append(bounds, at)
		if _, at, last, err = x.Expand(nil, b, at, 1<<30); err != nil {
			t.Fatal(err)
		}
	}
	if len(bounds) < 4 {
		t.Fatalf("only %d blocks", len(bounds))
	}
	for i, at := range bounds[:len(bounds)-1] {
		block, end, _, err := x.Expand(nil, b, at, 1<<30)
		if err != nil || end != bounds[i+1] {
			t.Fatalf("block %d ends at %d, want %d: %v", i, end, bounds[i+1], err)
		}
		want := b[at/8 : (end+7)/8]
		dst := make([]byte, len(want))
		var p deflate.Packer
		p.Start(dst, want[0], uint(at%8))
		rest, err := p.Pack(block)
		if err != nil || len(rest) != 0 {
			t.Fatalf("Pack leaves %d bytes: %v", len(rest), err)
		}
		tail := want[len(want)-1]
		if missing := p.Missing(); missing > 0 {
			tail >>= 8 - missing
		}
		if n, err := p.End(tail); err != nil || n != len(want) || !bytes.Equal(dst, want) {
			t.Errorf("block %d: End = %d, %v; the bytes differ", i, n, err)
		}
	}
}

func TestLimits(t *testing.T) {
	b := compress(t, 6, text(3, 50_000))
	blocks, _ := expand(t, b)
	var x deflate.Expander
	for _, limit := range []int{0, 1, 100, len(blocks) - 1} {
		out, end, _, err := x.Expand([]byte{}, b, 0, limit)
		for err == nil && end < 8*(len(b)-1) {
			out, end, _, err = x.Expand(out, b, end, limit)
		}
		if err == nil || len(out) > limit {
			t.Errorf("Expand within %d bytes = %d bytes, %v", limit, len(out), err)
		}
	}
	for _, n := range []int{0, 1, len(b) - 1} {
		if n, err := pack(make([]byte, n), blocks, 0); err == nil {
			t.Errorf("Pack put %d bytes into %d", len(b), n)
		}
	}
	for _, at := range []int{-1, 8*len(b) - 1, 8 * len(b), 8*len(b) + 1} {
		if _, _, _, err := x.Expand(nil, b, at, 1<<30); err == nil {
			t.Errorf("Expand at bit %d of %d: no error", at, 8*len(b))
		}
	}
}

// The longest match can also be written as the length before it with all extra
// bits set. No compressor does so, and Pack could not tell.
func TestOddSpelling(t *testing.T) {
	// A fixed block: 'a', match of symbol 284 with extra bits 31 at distance 1, end.
	var b []byte
	acc, n := uint64(0), 0
	put := func(v uint64, bits int) {
		acc |= v << n
		n += bits
	}
	put(0b011, 3)                       // last, fixed
	put(0x89, 8)                        // 'a' is 0x30+0x61 = 0x91, first bit first
	put(0b00100011, 8)                  // 284 is 0b11000100
	put(31, 5)                          // 227 + 31 = 258
	put(0, 5)                           // distance 1
	put(0, 7)                           // end
	for ; n > 0; n, acc = n-8, acc>>8 { // the stream
		b = append(b, byte(acc))
	}
	if out, err := io.ReadAll(flate.NewReader(bytes.NewReader(b))); err != nil || len(out) != 259 {
		t.Fatalf("the stream stands for %d bytes, %v; want 259", len(out), err)
	}
	var x deflate.Expander
	if _, _, _, err := x.Expand(nil, b, 0, 1<<30); err == nil {
		t.Error("Expand = nil; what Pack cannot restore must be refused")
	}
}

func TestNext(t *testing.T) {
	data := text(4, 5000)
	var gz, zl, zp bytes.Buffer
	g, _ := gzip.NewWriterLevel(&gz, 9)
	g.Name, g.Comment, g.Extra = "a name", "a comment", []byte("extra")
	g.Write(data)
	g.Close()
	z := zlib.NewWriter(&zl)
	z.Write(data)
	z.Close()
	a := zip.NewWriter(&zp)
	w, _ := a.Create("name")
	w.Write(data)
	a.Close()
	for name, file := range map[string][]byte{"gzip": gz.Bytes(), "zlib": zl.Bytes(), "zip": zp.Bytes()} {
		b := append(bytes.Repeat([]byte{0x1f, 'P', 0x55, 0x8b}, 25), file...)
		at := deflate.Next(b, 0)
		got, err := io.ReadAll(flate.NewReader(bytes.NewReader(b[at:])))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: Next = %d: %v, not the data", name, at, err)
		}
		for n := range min(len(file), 60) {
			if at := deflate.Next(file[:n], 0); at > n {
				t.Errorf("%s cut to %d bytes: Next = %d", name, n, at)
			}
		}
	}
	if at := deflate.Next(make([]byte, 100), 0); at != 100 {
		t.Errorf("Next of zeros = %d; want 100", at)
	}
}

// FuzzExpand: what is expanded is restored, whatever it is.
func FuzzExpand(f *testing.F) {
	for level := flate.HuffmanOnly; level <= 9; level++ {
		f.Add(compress(f, level, text(5, 1000)), uint16(0))
	}
	f.Add([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0, 3, 0}, uint16(80))
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		deflate.Next(b, int(at))
		var x deflate.Expander
		block, end, _, err := x.Expand([]byte("before"), b, int(at), 1<<20)
		if err != nil {
			if string(block) != "before" {
				t.Error("dst was changed by a failure")
			}
			return
		}
		want := b[at/8 : (end+7)/8]
		dst := make([]byte, len(want))
		var p deflate.Packer
		p.Start(dst, want[0], uint(at%8))
		if _, err := p.Pack(block[len("before"):]); err != nil {
			t.Fatalf("Pack = %v", err)
		}
		tail := want[len(want)-1]
		if missing := p.Missing(); missing > 0 {
			tail >>= 8 - missing
		}
		if n, err := p.End(tail); err != nil || n != len(want) || !bytes.Equal(dst, want) {
			t.Errorf("End = %d, %v; want the %d bytes of the block", n, err, len(want))
		}
	})
}

// FuzzPack: any bytes are an error or a block, within the room there is.
func FuzzPack(f *testing.F) {
	for _, level := range []int{0, 1, 9} {
		blocks, _ := expand(f, compress(f, level, text(6, 1000)))
		f.Add(blocks, uint16(2000))
	}
	f.Fuzz(func(t *testing.T, blocks []byte, room uint16) {
		dst := make([]byte, room)
		n, err := pack(dst[:room/2], blocks, 0xff)
		if err == nil && n > int(room/2) {
			t.Errorf("Pack wrote %d bytes into %d", n, room/2)
		}
		for _, c := range dst[room/2:] {
			if c != 0 {
				t.Fatal("Pack wrote beyond its room")
			}
		}
	})
}
