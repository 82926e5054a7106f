// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/sha256"
	"errors"
	"io"
	"sync"
)

// An echo reads an image back while others write its chunks, in any order: it
// waits for what is not there yet. So the digest of the whole takes no second pass.
type echo struct {
	image io.ReaderAt
	chunk int64 // bytes of one

	mu      sync.Mutex
	changed sync.Cond
	written []bool
	ended   bool
}

func newEcho(image io.ReaderAt, chunk int64, chunks int) *echo {
	e := &echo{image: image, chunk: chunk, written: make([]bool, chunks)}
	e.changed.L = &e.mu
	return e
}

// add says that chunk i was written.
func (e *echo) add(i int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.written[i] = true
	e.changed.Signal()
}

// end says that no more is written.
func (e *echo) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	e.changed.Signal()
}

var errNeverWritten = errors.New("not all of the image was written")

func (e *echo) ReadAt(b []byte, off int64) (int, error) {
	for i := off / e.chunk; i*e.chunk < off+int64(len(b)); i++ {
		if !e.wait(int(i)) {
			return 0, errNeverWritten
		}
	}
	return e.image.ReadAt(b, off)
}

func (e *echo) wait(i int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for !e.written[i] && !e.ended {
		e.changed.Wait()
	}
	return e.written[i]
}

// digest is that of the whole image, as it is read back.
func (e *echo) digest(size int64) (Digest, error) {
	hash := sha256.New()
	_, err := io.CopyBuffer(hash, io.NewSectionReader(e, 0, size), make([]byte, min(e.chunk, size)))
	return Digest(hash.Sum(nil)), err
}
