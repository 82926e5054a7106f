// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"fmt"
	"io"
)

// A source is an image as bytes.
type source struct {
	b      []byte
	mapped bool
}

// openSource maps or reads the first size bytes of an image.
func openSource(r io.ReaderAt, size int64) (source, error) {
	if size < 0 || size > maxSource || size != int64(int(size)) {
		return source{}, fmt.Errorf("size %d is out of range", size)
	}
	if b, ok := mapFile(r, int(size)); ok {
		return source{b, true}, nil
	}
	b := make([]byte, size)
	if err := readFull(r, b, 0); size > 0 && err != nil {
		return source{}, err
	}
	return source{b, false}, nil
}

// forget gives the pages of a mapped file back after a pass over all of them:
// what is wanted again comes from the page cache. A fifth of a usual image, or
// more, is zeros that nothing asks for a second time.
func (s source) forget() error {
	if !s.mapped {
		return nil
	}
	return forgetPages(s.b)
}

func (s source) close() error {
	if !s.mapped {
		return nil
	}
	return unmapFile(s.b)
}
