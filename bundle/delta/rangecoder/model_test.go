// SPDX-License-Identifier: Apache-2.0

package rangecoder_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/updaterd/updaterd/bundle/delta/rangecoder"
)

// code codes data, each byte in the contexts of the one and the two before; the
// prediction is the byte a hundred before.
func code(m *rangecoder.Model, c *rangecoder.Coder, data []byte, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		var x rangecoder.Contexts
		var p [1]rangecoder.Prediction
		if i > 1 {
			x[0], x[1] = uint64(out[i-1]), uint64(out[i-1])|uint64(out[i-2])<<8
		}
		if i >= 100 {
			p[0] = rangecoder.Prediction{Byte: out[i-100], Trust: 63}
		}
		var b byte
		if data != nil {
			b = data[i]
		}
		out[i] = m.Byte(c, b, &x, p[:], i&1)
	}
	return out
}

func sample() map[string][]byte {
	rnd := rand.New(rand.NewPCG(5, 6))
	random := make([]byte, 20_000)
	few := make([]byte, 20_000)
	for i := range random {
		random[i] = byte(rnd.Uint32())
		few[i] = "abcd"[rnd.IntN(4)]
	}
	return map[string][]byte{
		"nothing": {}, "zeros": make([]byte, 20_000), "ones": bytes.Repeat([]byte{255}, 20_000),
		"random": random, "few": few, "period": bytes.Repeat(random[:100], 200),
	}
}

func TestModel(t *testing.T) {
	most := map[string]int{"nothing": 0, "zeros": 40, "ones": 40, "random": 20_700, "few": 5_300, "period": 300}
	m := rangecoder.NewModel(2, 1, 10, 16, 20) // few slots: contexts must share them
	for name, data := range sample() {
		t.Run(name, func(t *testing.T) {
			var c rangecoder.Coder
			c.Encode(nil)
			m.Reset()
			code(m, &c, data, len(data))
			b := c.Finish()
			if len(b) > most[name] {
				t.Errorf("%d bytes are %d; want at most %d", len(data), len(b), most[name])
			}
			c.Decode(b)
			m.Reset()
			if got := code(m, &c, nil, len(data)); !bytes.Equal(got, data) {
				t.Error("the bytes are not the same after the round trip")
			}
			if err := c.End(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What was learnt before Reset, or by another instance, must not matter.
func TestReset(t *testing.T) {
	data := sample()
	run := func(m *rangecoder.Model) []byte {
		var c rangecoder.Coder
		c.Encode(nil)
		code(m, &c, data["few"], 5000)
		return c.Finish()
	}
	m := rangecoder.NewModel(2, 1, 12, 16, 20)
	want := run(m)
	code(m, nil, data["random"], 5000)
	m.Reset()
	if !bytes.Equal(run(m), want) || !bytes.Equal(run(rangecoder.NewModel(2, 1, 12, 16, 20)), want) {
		t.Error("the same bytes are coded differently")
	}
}

// A model that has learnt without a coder is as one that has coded.
func TestLearn(t *testing.T) {
	data := sample()["few"]
	var c rangecoder.Coder
	c.Encode(nil)
	m := rangecoder.NewModel(2, 1, 12, 16, 20)
	code(m, &c, data[:1000], 1000)
	n := rangecoder.NewModel(2, 1, 12, 16, 20)
	code(n, nil, data[:1000], 1000)
	for _, m := range []*rangecoder.Model{m, n} {
		c.Encode(nil)
		code(m, &c, data[1000:], 1000)
		t.Logf("%d bytes", len(c.Finish()))
	}
}

// FuzzModel: any code gives some bytes and no panic.
func FuzzModel(f *testing.F) {
	f.Add([]byte("code"), uint16(100))
	f.Add([]byte{}, uint16(5000))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		m := rangecoder.NewModel(2, 1, 10, 16, 60)
		var c rangecoder.Coder
		c.Decode(b)
		code(m, &c, nil, int(n))
	})
}

func BenchmarkModel(b *testing.B) {
	data := sample()["few"]
	m := rangecoder.NewModel(2, 1, 16, 16, 20)
	var c rangecoder.Coder
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		m.Reset()
		c.Encode(nil)
		code(m, &c, data, len(data))
	}
}
