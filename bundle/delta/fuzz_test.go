// SPDX-License-Identifier: Apache-2.0

package delta_test

import (
	"bytes"
	"testing"

	"github.com/updaterd/updaterd/bundle/delta"
)

// FuzzApply: any patch is an error, or writes every byte of the chunk.
func FuzzApply(f *testing.F) {
	src := program(3, nil)
	x := newIndex(f, src)
	for i, target := range [][]byte{nil, src[:100], src[500:1500], program(3, map[int]int{0: 5})[:900], noise(1, 50)} {
		patch, err := x.Patch(target, int64(i))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(patch, uint16(len(target)))
	}
	f.Add(plain(delta.Craft(18, src, func(c *delta.Crafter) { c.Literal("xy").CopyAt(8, 20).Literal("z").CopyAt(7, -3) })), uint16(18))
	f.Add(plain(bytes.Repeat([]byte{0x80}, 50)), uint16(9000))
	f.Fuzz(func(t *testing.T, patch []byte, n uint16) {
		one, two := make([]byte, n), bytes.Repeat([]byte{0xff}, int(n))
		err1 := delta.Apply(one, patch, fence{t, src}, int64(len(src)))
		err2 := delta.Apply(two, patch, fence{t, src}, int64(len(src)))
		if (err1 == nil) != (err2 == nil) || err1 == nil && !bytes.Equal(one, two) {
			t.Errorf("Apply depends on what was in the chunk before: %v, %v", err1, err2)
		}
	})
}

// FuzzRoundTrip: whatever the source and the chunk, the patch gives the chunk.
func FuzzRoundTrip(f *testing.F) {
	src := program(2, nil)
	f.Add(src, program(2, map[int]int{0: 3}), int64(0))
	f.Add(src, append([]byte("new"), src...), int64(1000))
	f.Add([]byte(nil), src, int64(7))
	f.Add(bytes.Repeat([]byte("abc"), 300), bytes.Repeat([]byte("abd"), 200), int64(1<<40))
	f.Fuzz(func(t *testing.T, src, target []byte, offset int64) {
		if offset < 0 || len(target) > delta.MaxTarget {
			return
		}
		patch, err := newIndex(t, src).Patch(target, offset)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(target))
		if err := delta.Apply(got, patch, fence{t, src}, int64(len(src))); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, target) {
			t.Error("the chunk differs after the round trip")
		}
	})
}
