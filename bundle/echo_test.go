// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"errors"
	"testing"
)

// An echo gives the digest of the whole, whatever comes first, and an error if
// something never comes.
func TestEcho(t *testing.T) {
	image := bytes.Repeat([]byte("0123456789"), 25)
	for name, missing := range map[string]int{"all": -1, "the first": 0, "one in the middle": 1, "the last": 2} {
		t.Run(name, func(t *testing.T) {
			written := make([]byte, len(image))
			e := newEcho(bytes.NewReader(written), 100, 3)
			type end struct {
				digest Digest
				err    error
			}
			done := make(chan end)
			go func() {
				d, err := e.digest(int64(len(image)))
				done <- end{d, err}
			}()
			for i := 2; i >= 0; i-- {
				if i == missing {
					continue
				}
				copy(written[i*100:], image[i*100:min((i+1)*100, len(image))])
				e.add(i)
			}
			e.end()
			got := <-done
			if missing < 0 && (got.err != nil || got.digest != Sum(image)) {
				t.Errorf("digest = %v, %v; want %v", got.digest, got.err, Sum(image))
			}
			if missing >= 0 && !errors.Is(got.err, errNeverWritten) {
				t.Errorf("error %v; want %v", got.err, errNeverWritten)
			}
		})
	}
}
