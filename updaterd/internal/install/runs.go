// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/binary"
	"iter"
	"slices"
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

// places tells where in a data file units are: one entry for neighbours, because
// there may be very many units.
type places struct {
	units  units
	pieces []piece // none overlaps another; in the order of the data
}

// A piece is units from one place in the data to another, and where in the file
// and in the payload the first of them begins.
type piece struct {
	from, to int
	at, off  int64
}

// locate finds units in a file of size bytes that holds runs one after the other.
// Of several copies the last one counts: the ones before it were bad.
func (img *image) locate(runs []run, size int64) places {
	p := places{units: img.units}
	base := int64(0)
	for _, r := range runs {
		off := img.recipe.Data.Offset + r.off
		end := off + min(r.n, size-base)
		next := piece{from: p.search(func(o int64, _ int) bool { return o >= off })}
		next.to = p.search(func(o int64, n int) bool { return o >= off && o+int64(n) > end })
		if next.from < next.to {
			next.off, _ = img.units.place(nth(img.units, next.from))
			next.at = base + next.off - off
			p.add(next)
		}
		if base += r.n; base >= size {
			break
		}
	}
	return p
}

// search is the first place in the data whose unit is beyond something.
func (p *places) search(beyond func(off int64, n int) bool) int {
	return sort.Search(p.units.count(), func(k int) bool { return beyond(p.units.place(nth(p.units, k))) })
}

// add puts a piece in place of what was known of its units.
func (p *places) add(next piece) {
	i := sort.Search(len(p.pieces), func(i int) bool { return p.pieces[i].to > next.from })
	j := i + sort.Search(len(p.pieces)-i, func(j int) bool { return p.pieces[i+j].from >= next.to })
	with := make([]piece, 0, 3)
	if i < j && p.pieces[i].from < next.from {
		left := p.pieces[i]
		left.to = next.from
		with = append(with, left)
	}
	with = append(with, next)
	if i < j && p.pieces[j-1].to > next.to {
		right := p.pieces[j-1]
		off, _ := p.units.place(nth(p.units, next.to))
		right.from, right.at, right.off = next.to, right.at+off-right.off, off
		with = append(with, right)
	}
	p.pieces = slices.Replace(p.pieces, i, j, with...)
}

// at is where a unit begins in the file, or -1; so it is of one without bytes.
func (p *places) at(u int) int64 {
	off, n := p.units.place(u)
	k := placeOf(p.units, u)
	i := sort.Search(len(p.pieces), func(i int) bool { return p.pieces[i].to > k })
	if n == 0 || i == len(p.pieces) || p.pieces[i].from > k {
		return -1
	}
	return p.pieces[i].at + off - p.pieces[i].off
}
