// SPDX-License-Identifier: Apache-2.0

package install

import (
	"iter"
	"sync"
)

// lookahead bounds how many chunks are in hand while a slot is read.
const lookahead = 3

// A look is one chunk as the medium has it.
type look struct {
	i   int
	b   []byte   // good until the next look
	err error    // why it cannot be read, or is not what it should be
	was []uint32 // checksums of the blocks, if it is to be overwritten

	buf    []byte
	judged chan struct{}
}

// looks reads chunks of a slot in an order, one after the other, and has judge
// think about some of them while the next ones are read. What it yields is in
// the order again. The memory is that of the window and of the encoded chunk,
// which nobody needs meanwhile; when looks returns, nothing uses it or the device.
func (w *work) looks(s *slot, order iter.Seq[int], judge func(*look)) iter.Seq[*look] {
	return func(yield func(*look) bool) {
		s.window.Reset()
		bufs := w.buffers(s)
		free := make(chan []byte, len(bufs))
		for _, b := range bufs {
			free <- b
		}
		queue := make(chan *look, len(bufs))
		stop := make(chan struct{})
		var running sync.WaitGroup
		defer running.Wait()
		defer close(stop)
		running.Go(func() {
			defer close(queue)
			for i := range order {
				l := &look{i: i, judged: make(chan struct{})}
				select {
				case l.buf = <-free:
				case <-stop:
					return
				}
				l.b = l.buf[:s.ChunkLength(i)]
				_, l.err = s.dev.ReadAt(l.b, s.offset(i))
				running.Go(func() {
					judge(l)
					close(l.judged)
				})
				queue <- l // has room for every buffer
			}
		})
		for l := range queue {
			<-l.judged
			if !yield(l) {
				return
			}
			free <- l.buf
		}
	}
}

// buffers are places for a chunk each.
func (w *work) buffers(s *slot) [][]byte {
	bufs := [][]byte{w.encoded}
	for b := w.content; int64(len(b)) >= s.ChunkSize && len(bufs) < lookahead; b = b[s.ChunkSize:] {
		bufs = append(bufs, b[:s.ChunkSize])
	}
	return bufs
}

// upwards yields the numbers from one up to below another.
func upwards(from, to int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := from; i < to && yield(i); i++ {
		}
	}
}
