// SPDX-License-Identifier: Apache-2.0

package delta_test

import (
	"bytes"
	"testing"

	"github.com/updaterd/updaterd/bundle/delta"
)

func BenchmarkIndex(b *testing.B) {
	src := program(20_000, nil)
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		x, err := delta.NewIndex(bytes.NewReader(src), int64(len(src)), nil)
		if err != nil {
			b.Fatal(err)
		}
		x.Close()
	}
}

// cases are a chunk's relations to the source: most are the same, some hold
// recompiled code, a few are new.
func cases() (src []byte, chunks map[string][]byte) {
	src = program(4000, nil)
	return src, map[string][]byte{
		"same":       src[:chunkSize],
		"recompiled": program(4000, map[int]int{1: 16, 50: 48, 900: 7})[:chunkSize],
		"new":        noise(30, chunkSize),
	}
}

func BenchmarkPatch(b *testing.B) {
	src, chunks := cases()
	x := newIndex(b, src)
	for name, chunk := range chunks {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				if _, err := x.Patch(chunk, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkApply(b *testing.B) {
	src, chunks := cases()
	x := newIndex(b, src)
	for name, chunk := range chunks {
		b.Run(name, func(b *testing.B) {
			patch, err := x.Patch(chunk, 0)
			if err != nil {
				b.Fatal(err)
			}
			a := new(delta.Applier)
			dst := make([]byte, len(chunk))
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			for b.Loop() {
				if err := a.Apply(dst, patch, bytes.NewReader(src), int64(len(src))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
