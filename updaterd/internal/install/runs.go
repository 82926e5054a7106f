// SPDX-License-Identifier: Apache-2.0

package install

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/updaterd/updaterd/bundle"
)

// A run is a range of a recipe's data: encoded chunks that are neighbours there.
type run struct{ off, n int64 }

// bridge is the longest gap between two needed chunks that is fetched along
// with them: a request of its own costs about as much in headers, and a round
// trip on top.
const bridge = 2 << 10

// join makes runs, by their offset from start, of the chunks in need, which
// lists them in the order of the data. Chunks without bytes make none.
func join(entries []bundle.Entry, need []int, start int64) (runs []run) {
	for _, i := range need {
		e := entries[i]
		if e.Length == 0 {
			continue
		}
		off := e.Offset - start
		if k := len(runs) - 1; k >= 0 && off-(runs[k].off+runs[k].n) <= bridge {
			runs[k].n = off + int64(e.Length) - runs[k].off
			continue
		}
		runs = append(runs, run{off, int64(e.Length)})
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

// locate finds chunks in a file of size bytes that holds runs one after the
// other: where each begins, or -1. Of several copies the last one counts: the
// ones before it were bad.
func (img *image) locate(runs []run, size int64) []int64 {
	at := make([]int64, len(img.entries))
	for i := range at {
		at[i] = -1
	}
	order := slices.Collect(bundle.Order(len(at)))
	start, base := img.recipe.Data.Offset, int64(0)
	for _, r := range runs {
		k, _ := slices.BinarySearchFunc(order, start+r.off, func(i int, off int64) int {
			return cmp.Compare(img.entries[i].Offset, off)
		})
		for ; k < len(order); k++ {
			e := img.entries[order[k]]
			skip := e.Offset - start - r.off
			end := skip + int64(e.Length)
			if end > r.n || base+end > size {
				break
			}
			if e.Length > 0 {
				at[order[k]] = base + skip
			}
		}
		if base += r.n; base >= size {
			break
		}
	}
	return at
}
