// SPDX-License-Identifier: Apache-2.0

package blocks

import "iter"

// Gap is how many bytes between two pieces are better fetched for nothing than
// to ask for each of them: docs/compression.md.
const Gap = 8 << 10

// A Range is a piece of a recipe's data.
type Range struct{ Offset, Length int64 }

// End is where the range ends.
func (r Range) End() int64 { return r.Offset + r.Length }

// Ranges joins pieces, which come in the order of their offsets, to what is
// worth one request each: two with at most gap bytes between them are one, and
// those bytes are fetched for nothing.
func Ranges(pieces iter.Seq[Range], gap int64) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		var run Range
		for p := range pieces {
			switch {
			case p.Length == 0:
			case run.Length == 0:
				run = p
			case p.Offset-run.End() <= gap:
				run.Length = p.End() - run.Offset
			default:
				if !yield(run) {
					return
				}
				run = p
			}
		}
		if run.Length > 0 {
			yield(run)
		}
	}
}
