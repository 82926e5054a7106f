// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"iter"
)

// extents yields the extents of the payload in the one order that is allowed,
// each with words for an error: docs/bundle-format.md#payload. First come all
// tables, so that a device gets those of an image in one range; then the data
// of the deltas, of the blocks recipes, and of the full ones, which a device
// with a known source never fetches; and last the documents, which no device does.
func (m *Manifest) extents() iter.Seq2[*Extent, string] {
	return func(yield func(*Extent, string) bool) {
		for i := range m.Images {
			img := &m.Images[i]
			if !yield(&img.Chunks.Extent, fmt.Sprintf("image %q: chunk table", img.Class)) {
				return
			}
			for k := range img.Recipes {
				if !yield(&img.Recipes[k].Table.Extent, fmt.Sprintf("image %q: table of recipe %d", img.Class, k)) {
					return
				}
			}
		}
		for _, kind := range kinds {
			for i := range m.Images {
				img := &m.Images[i]
				for k := range img.Recipes {
					r := &img.Recipes[k]
					if r.Kind == kind && !yield(&r.Data, fmt.Sprintf("image %q: data of recipe %d", img.Class, k)) {
						return
					}
				}
			}
		}
		for i := range m.Documents {
			d := &m.Documents[i]
			if !yield(&d.Extent, fmt.Sprintf("document %q", d.Name)) {
				return
			}
		}
	}
}

// PayloadSize is the length of the payload; with the header and the envelope
// it is that of the file.
func (m *Manifest) PayloadSize() int64 {
	var size int64
	for e := range m.extents() {
		size += e.Length
	}
	return size
}

// checkLayout checks that the extents tile the payload: each begins where the
// one before it ends. The limits on lengths keep the sum far from the end of an
// int64.
func (m *Manifest) checkLayout() error {
	var next int64
	for e, what := range m.extents() {
		if e.Offset != next {
			return fmt.Errorf("%s at payload offset %d, want %d: no gap and no overlap", what, e.Offset, next)
		}
		next += e.Length
	}
	return nil
}

// place gives every extent its offset; lengths are set already.
func (m *Manifest) place() {
	var next int64
	for e := range m.extents() {
		e.Offset = next
		next += e.Length
	}
}
