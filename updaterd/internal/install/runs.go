// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/binary"
	"iter"
	"sort"

	"github.com/updaterd/updaterd/bundle/blocks"
)

// A run is a range of a recipe's data: units that are neighbours there.
type run struct{ off, n int64 }

// join makes runs, by their offset from start, of the units in need, which come
// in the order of the data. Units without bytes make none.
func join(all units, need iter.Seq[int], start int64) iter.Seq[run] {
	pieces := func(yield func(blocks.Range) bool) {
		for u := range need {
			if off, n := all.place(u); !yield(blocks.Range{Offset: off - start, Length: int64(n)}) {
				return
			}
		}
	}
	return func(yield func(run) bool) {
		for r := range blocks.Ranges(pieces, all.gap()) {
			if !yield(run{r.Offset, r.Length}) {
				return
			}
		}
	}
}

// first is what a sequence begins with, if with anything.
func first[T any](all iter.Seq[T]) (v T, ok bool) {
	for v := range all {
		return v, true
	}
	return v, false
}

// length is the number of bytes in runs.
func length(runs iter.Seq[run]) (n int64) {
	for r := range runs {
		n += r.n
	}
	return n
}

// cutAt shortens runs to their first n bytes.
func cutAt(runs []run, n int64) []run {
	for k, r := range runs {
		if r.n >= n {
			runs[k].n = n
			if n > 0 {
				k++
			}
			return runs[:k]
		}
		n -= r.n
	}
	return runs
}

// runSize is the size of a run in a file: offset and length, 64 bits each, little endian.
const runSize = 16

func appendRuns(b []byte, runs []run) []byte {
	for _, r := range runs {
		b = binary.LittleEndian.AppendUint64(b, uint64(r.off))
		b = binary.LittleEndian.AppendUint64(b, uint64(r.n))
	}
	return b
}

// parseRuns reads what appendRuns wrote about data of a length; what makes no
// sense is nil.
func parseRuns(b []byte, data int64) []run {
	if len(b)%runSize != 0 {
		return nil
	}
	runs := make([]run, 0, len(b)/runSize)
	for ; len(b) > 0; b = b[runSize:] {
		r := run{int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))}
		if r.off < 0 || r.n <= 0 || r.off >= data || r.n > data-r.off {
			return nil
		}
		runs = append(runs, r)
	}
	return runs
}

// locate finds units in a file of size bytes that holds runs one after the
// other: where each begins, or -1. Of several copies the last one counts: the
// ones before it were bad.
func (img *image) locate(runs []run, size int64) []int64 {
	at := make([]int64, img.units.count())
	for u := range at {
		at[u] = -1
	}
	start, base := img.recipe.Data.Offset, int64(0)
	for _, r := range runs {
		k := sort.Search(len(at), func(k int) bool {
			off, _ := img.units.place(nth(img.units, k))
			return off >= start+r.off
		})
		for ; k < len(at); k++ {
			u := nth(img.units, k)
			off, n := img.units.place(u)
			skip := off - start - r.off
			end := skip + int64(n)
			if end > r.n || base+end > size {
				break
			}
			if n > 0 {
				at[u] = base + skip
			}
		}
		if base += r.n; base >= size {
			break
		}
	}
	return at
}
