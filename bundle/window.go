// SPDX-License-Identifier: Apache-2.0

package bundle

import "fmt"

// firstPrefixed is the first chunk that can have a prefix. Chunk 0 is never
// part of one, because it is made last.
const firstPrefixed = 2

// A Window is where chunks of one image are made, with those before them still
// at hand: a chunk that is Prefixed needs them. Chunks may come in any order,
// and as long as each follows the one before it nothing is read twice.
type Window struct {
	img *Image
	buf []byte
	// Chunks first to next-1 lie at the front of buf, and are good.
	first, next int
}

// WindowSize is the memory that a window of an image takes: the longest prefix
// of its recipes, in whole chunks, and one chunk more.
func WindowSize(img *Image, recipes ...*Recipe) int64 {
	var longest int64
	for _, r := range recipes {
		longest = max(longest, r.Prefix)
	}
	return (longest+img.ChunkSize-1)/img.ChunkSize*img.ChunkSize + img.ChunkSize
}

// NewWindow makes a window in buf, which has at least WindowSize bytes.
func NewWindow(img *Image, buf []byte) *Window {
	return &Window{img: img, buf: buf[:int64(len(buf))/img.ChunkSize*img.ChunkSize]}
}

// Reset forgets every chunk.
func (w *Window) Reset() { w.first, w.next = 0, 0 }

// Place is where chunk i is to be made. What is there counts only after
// [Window.Keep].
func (w *Window) Place(i int) []byte {
	if i < w.first || i > w.next {
		w.first, w.next = i, i
	}
	w.next = i
	if i-w.first > w.room() {
		w.move(i - w.room())
	}
	return w.at(i)
}

// Keep says that chunk i is in its place and has its digest.
func (w *Window) Keep(i int) {
	if i == 0 {
		w.Reset()
		return
	}
	w.next = i + 1
}

// Prefix is the prefix of chunk i in a recipe. It gets the chunks that are not
// at hand from read, which compares each with its digest.
func (w *Window) Prefix(r *Recipe, i int, read func(j int, chunk []byte) error) ([]byte, error) {
	from := max(1, i-int((r.Prefix+w.img.ChunkSize-1)/w.img.ChunkSize))
	if i-from > w.room() {
		return nil, fmt.Errorf("internal error: a window of %d bytes for a prefix of %d", len(w.buf), r.Prefix)
	}
	if w.next = min(w.next, i); w.first >= w.next || w.next <= from && w.next < i {
		w.first, w.next = from, from // nothing of use
	}
	had, end := w.first, w.next
	w.move(min(from, max(had, i-w.room())))
	for j := from; j < i; j++ {
		if had <= j && j < end {
			continue
		}
		if err := read(j, w.at(j)); err != nil {
			w.Reset()
			return nil, err
		}
	}
	w.next = i
	last := w.buf[:int64(i-w.first)*w.img.ChunkSize]
	return last[max(0, int64(len(last))-min(r.Prefix, int64(i-from)*w.img.ChunkSize)):], nil
}

// FramePrefix is the prefix of frame k of chunk i, whose place was asked for
// last. The frames before it are in that place, and [Window.Prefix] has seen to
// the chunks before it.
func (w *Window) FramePrefix(r *Recipe, i, k int) []byte {
	if i == 0 {
		return nil
	}
	end := int64(i-w.first)*w.img.ChunkSize + int64(k)*r.Frame
	return w.buf[max(0, end-r.Prefix):end]
}

// room is how many chunks there may be before the one in hand.
func (w *Window) room() int { return int(int64(len(w.buf))/w.img.ChunkSize) - 1 }

// move makes chunk i the first one. Chunks after it keep their content.
func (w *Window) move(i int) {
	size := int(w.img.ChunkSize)
	if i > w.first {
		copy(w.buf, w.buf[(i-w.first)*size:(w.next-w.first)*size])
	} else if i < w.first {
		copy(w.buf[(w.first-i)*size:], w.buf[:(w.next-w.first)*size])
	}
	w.first = i
}

func (w *Window) at(i int) []byte {
	off := int64(i-w.first) * w.img.ChunkSize
	return w.buf[off : off+int64(w.img.ChunkLength(i))]
}

// notAtHand is what reads a chunk that went before, where all chunks are made
// one after the other.
func notAtHand(j int, _ []byte) error {
	return fmt.Errorf("internal error: chunk %d is not at hand", j)
}
