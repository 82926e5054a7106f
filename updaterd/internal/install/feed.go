// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"io"
	"os"

	"github.com/updaterd/updaterd/bundle"
)

// A feed delivers the encoded bytes of the chunks of one image, in the order in
// which they are asked for. They are not authenticated yet; nil means that the
// feed does not have them. They are good until the next call.
type feed interface {
	next(ctx context.Context, i int) ([]byte, error)
	Close() error
}

// newFeed opens the feed of an image, of which the chunks in need will be asked
// for. It reads into buf.
func (p *plan) newFeed(img *image, need []int, buf []byte) feed {
	if p.key.mode == ModeStore {
		// A file that is missing is treated like one whose chunks are bad.
		f, _ := os.Open(p.e.store.path(storeKey(img.recipe), fileData))
		return &storedFeed{img: img, f: f, buf: buf}
	}
	return &streamFeed{p: p, img: img, need: need, buf: buf}
}

// A storedFeed reads what Download stored.
type storedFeed struct {
	img *image
	f   *os.File
	buf []byte
}

func (s *storedFeed) next(_ context.Context, i int) ([]byte, error) {
	if e := s.img.entries[i]; s.f != nil && s.img.stored(s.f, e, s.buf) {
		return s.buf[:e.Length], nil
	}
	return nil, nil
}

func (s *storedFeed) Close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}

// A streamFeed reads the chunks that are needed from the remote file: a run of
// neighbours is one range.
type streamFeed struct {
	p    *plan
	img  *image
	need []int // not yet delivered
	buf  []byte

	run     io.ReadCloser
	at, end int64 // of the run, in the payload
	base    int64 // of the payload when the run was opened
}

func (s *streamFeed) next(ctx context.Context, i int) ([]byte, error) {
	for len(s.need) > 0 && s.need[0] != i {
		s.need = s.need[1:]
	}
	e := s.img.entries[i]
	b := s.buf[:e.Length]
	if e.Length == 0 {
		return b, nil
	}
	for {
		err := s.seek(ctx, e.Offset)
		if err == nil {
			var n int
			n, err = io.ReadFull(s.run, b)
			s.at += int64(n)
		}
		if err == nil {
			return b, nil
		}
		s.Close()
		if err := s.p.recover(ctx, err); err != nil {
			return nil, err
		}
	}
}

// seek makes sure that the next byte of the run is the one at off.
func (s *streamFeed) seek(ctx context.Context, off int64) error {
	if s.run != nil && s.at == off && s.at < s.end && s.base == s.p.base {
		return nil
	}
	s.Close()
	if err := s.p.connect(); err != nil {
		return err
	}
	end := runEnd(s.img.entries, s.need)
	run, err := s.p.remote.Range(ctx, s.p.base+off, end-off)
	if err != nil {
		return err
	}
	s.run, s.at, s.end, s.base = run, off, end, s.p.base
	return nil
}

// runEnd is where the run of neighbours that begins with the first needed chunk ends.
func runEnd(entries []bundle.Entry, need []int) int64 {
	end := entries[need[0]].Offset
	for _, i := range need {
		if entries[i].Offset != end {
			break
		}
		end += int64(entries[i].Length)
	}
	return end
}

func (s *streamFeed) Close() error {
	if s.run == nil {
		return nil
	}
	err := s.run.Close()
	s.run = nil
	return err
}
