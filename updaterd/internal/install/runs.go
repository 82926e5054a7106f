// SPDX-License-Identifier: Apache-2.0

package install

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// A run is a range of a recipe's data: units that are neighbours there.
type run struct{ off, n int64 }

// join makes runs, by their offset from start, of the units in need, which lists
// them in the order of the data. Units without bytes make none.
func join(all units, need []int, start int64) (runs []run) {
	for _, u := range need {
		off, n := all.place(u)
		if off -= start; n == 0 {
			continue
		}
		if k := len(runs) - 1; k >= 0 && off-(runs[k].off+runs[k].n) <= all.gap() {
			runs[k].n = off + int64(n) - runs[k].off
			continue
		}
		runs = append(runs, run{off, int64(n)})
	}
	return runs
}

// length is the number of bytes in runs.
func length(runs []run) (n int64) {
	for _, r := range runs {
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
	order := slices.AppendSeq(make([]int, 0, len(at)), img.units.order())
	start, base := img.recipe.Data.Offset, int64(0)
	for _, r := range runs {
		k, _ := slices.BinarySearchFunc(order, start+r.off, func(u int, off int64) int {
			from, _ := img.units.place(u)
			return cmp.Compare(from, off)
		})
		for ; k < len(order); k++ {
			off, n := img.units.place(order[k])
			skip := off - start - r.off
			end := skip + int64(n)
			if end > r.n || base+end > size {
				break
			}
			if n > 0 {
				at[order[k]] = base + skip
			}
		}
		if base += r.n; base >= size {
			break
		}
	}
	return at
}
