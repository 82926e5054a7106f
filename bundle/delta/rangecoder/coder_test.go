// SPDX-License-Identifier: Apache-2.0

package rangecoder_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/updaterd/updaterd/bundle/delta/rangecoder"
)

// A decision is a bit and its probability, or a whole byte if that is 0.
type decision struct{ value, p uint32 }

func encode(buf []byte, decisions []decision) []byte {
	var c rangecoder.Coder
	c.Encode(buf)
	for _, d := range decisions {
		if d.p == 0 {
			c.Byte(byte(d.value))
		} else {
			c.Bit(d.value, d.p)
		}
	}
	return c.Finish()
}

type tb interface{ Fatalf(string, ...any) }

func check(t tb, decisions []decision) []byte {
	code := encode([]byte("before"), decisions)
	if !bytes.HasPrefix(code, []byte("before")) {
		t.Fatalf("the code changed what is before it: %q", code[:6])
	}
	code = code[6:]
	var c rangecoder.Coder
	c.Decode(code)
	for i, d := range decisions {
		var got uint32
		if d.p == 0 {
			got = uint32(c.Byte(byte(^d.value)))
		} else {
			got = c.Bit(1-d.value, d.p)
		}
		if got != d.value {
			t.Fatalf("decision %d of %d is %d; want %d", i, len(decisions), got, d.value)
		}
		if err := c.Err(); err != nil {
			t.Fatalf("decision %d: %v", i, err)
		}
	}
	if err := c.End(); err != nil {
		t.Fatalf("end of %d decisions in %x: %v", len(decisions), code[max(0, len(code)-8):], err)
	}
	return code
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.OneOf(rapid.Uint32Range(0, 65535), rapid.SampledFrom([]uint32{0, 1, 2, 32768, 65534, 65535}))
		var all []decision
		for range rapid.IntRange(0, 40).Draw(t, "runs") {
			d := decision{rapid.Uint32Range(0, 1).Draw(t, "bit"), p.Draw(t, "p")}
			if d.p == 0 {
				d.value = rapid.SampledFrom([]uint32{0, 1, 127, 254, 255}).Draw(t, "byte")
			}
			for range rapid.SampledFrom([]int{1, 2, 7, 1500}).Draw(t, "times") {
				all = append(all, d)
			}
		}
		check(t, all)
	})
}

// Carries run through long rows of the same byte.
func TestLongRuns(t *testing.T) {
	for _, p := range []uint32{0, 1, 2, 255, 256, 32767, 32768, 32769, 65280, 65534, 65535} {
		for _, value := range []uint32{0, 1, 255} {
			if p > 0 && value > 1 {
				continue
			}
			t.Run(fmt.Sprint(p, value), func(t *testing.T) {
				all := make([]decision, 50_000)
				for i := range all {
					all[i] = decision{value, p}
				}
				code := check(t, all)
				if p == 32768 && len(code) > len(all)/8+4 {
					t.Errorf("%d even bits are %d bytes", len(all), len(code))
				}
				check(t, append(all, decision{1 - value&1, max(p, 1)}))
			})
		}
	}
}

// Random decisions must cost what their probabilities say.
func TestCost(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var all []decision
	for range 1_000_000 {
		bit := uint32(0)
		if rnd.IntN(65536) < 655 {
			bit = 1
		}
		all = append(all, decision{bit, 655})
	}
	// 0.0807 bits is the entropy of one in a hundred.
	if n := len(check(t, all)); n < 9_900 || n > 10_300 {
		t.Errorf("a million bits of which 1 %% are 1 are %d bytes; want about 10,080", n)
	}
}

func TestEnd(t *testing.T) {
	all := []decision{{1, 3000}, {0, 60000}, {200, 0}, {1, 1}, {1, 65535}, {17, 0}}
	code := encode(nil, all)
	decode := func(code []byte) error {
		var c rangecoder.Coder
		c.Decode(code)
		for _, d := range all {
			if d.p == 0 {
				c.Byte(0)
			} else {
				c.Bit(0, d.p)
			}
		}
		return c.End()
	}
	if err := decode(code); err != nil {
		t.Fatal(err)
	}
	for n := 1; n < 9; n++ {
		for _, b := range []byte{0, 1, 255} {
			if decode(append(bytes.Clone(code), bytes.Repeat([]byte{b}, n)...)) == nil {
				t.Errorf("%d bytes of %d behind the code are accepted", n, b)
			}
		}
	}
	if decode(append(bytes.Clone(code[:len(code)-1]), code[len(code)-1]+1)) == nil {
		t.Error("another last byte is accepted")
	}
	var c rangecoder.Coder
	c.Decode(code)
	for range 100 {
		c.Byte(0)
	}
	if c.Err() == nil {
		t.Error("bytes behind the end of the code are decoded")
	}
}

// FuzzDecode: any code gives some decisions, and those encode to the same code, if it is one.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{}, []byte{1, 2})
	f.Add([]byte{255, 255, 255, 255, 255}, []byte{0, 0, 0, 128})
	f.Add(bytes.Repeat([]byte{128}, 40), bytes.Repeat([]byte{0, 255, 7}, 40))
	f.Fuzz(func(t *testing.T, code, plan []byte) {
		var c rangecoder.Coder
		c.Decode(code)
		var all []decision
		for _, b := range plan {
			if b == 0 {
				all = append(all, decision{uint32(c.Byte(0)), 0})
			} else {
				p := uint32(b) << 8 >> (b & 7)
				all = append(all, decision{c.Bit(0, p), p})
			}
		}
		if c.End() != nil {
			return
		}
		if again := encode(nil, all); !bytes.Equal(again, code) {
			t.Errorf("%x decodes to what is encoded as %x", code, again)
		}
	})
}

func BenchmarkDecodeBit(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 2))
	all := make([]decision, 1<<16)
	for i := range all {
		all[i] = decision{uint32(rnd.IntN(2)), uint32(1 + rnd.IntN(65535))}
	}
	code := encode(nil, all)
	var c rangecoder.Coder
	for i := 0; b.Loop(); i++ {
		if i%len(all) == 0 {
			c.Decode(code)
		}
		c.Bit(0, all[i%len(all)].p)
	}
}
