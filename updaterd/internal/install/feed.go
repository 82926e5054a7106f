// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"io"
	"iter"
	"slices"

	"github.com/updaterd/updaterd/bootctl/durable"
)

// A feed delivers the encoded bytes of the units of one image, in the order in
// which they are asked for. They are not authenticated yet; nil means that the
// feed does not have them. They are good until the next call.
type feed interface {
	next(ctx context.Context, u int) ([]byte, error)
	// ahead is what is still to be fetched for units that were not asked for yet.
	ahead() int64
	Close() error
}

// supply opens a slot's feed and makes sure, before any slot is touched, that
// the needed chunks can be had: in store mode what is missing is stored first.
func (w *work) supply(ctx context.Context, s *slot) error {
	if s.origin != "" {
		return nil
	}
	need := slices.Values(s.need)
	if s.frames != nil {
		var err error
		if need, err = w.lookup(ctx, s); err != nil {
			return err
		}
	}
	if w.p.key.mode == ModeStream {
		s.feed = newStreamFeed(w.p, s.units, need, w.encoded)
		return w.p.within(w.ahead())
	}
	feed := openStored(s.image, s.store, w.encoded)
	s.feed = feed
	lost := feed.absent(need)
	if _, some := first(lost); !some {
		return nil
	}
	// The slots had them when Download looked, and have them no longer.
	if err := w.p.restock(ctx, s.image, lost, w.encoded); err != nil {
		return err
	}
	feed.Close()
	s.feed = openStored(s.image, s.store, w.encoded)
	return nil
}

// A storedFeed reads what is stored.
type storedFeed struct {
	units units
	f     durable.File // nil if there is none
	there places
	buf   []byte
}

func openStored(img *image, store store, buf []byte) *storedFeed {
	s := &storedFeed{units: img.units, buf: buf}
	size := int64(0) // a file that is missing is one that has no chunks
	if f, err := store.files.Open(store.path(storeKey(img.recipe), fileData)); err == nil {
		s.f = f
		if info, err := f.Stat(); err == nil {
			size = info.Size()
		}
	}
	s.there = img.locate(store.runsOf(img), size)
	return s
}

// absent yields those of some units that are not stored.
func (s *storedFeed) absent(need iter.Seq[int]) iter.Seq[int] {
	return func(yield func(int) bool) {
		for u := range need {
			if _, n := s.units.place(u); n > 0 && s.there.at(u) < 0 && !yield(u) {
				return
			}
		}
	}
}

func (s *storedFeed) next(_ context.Context, u int) ([]byte, error) {
	if at := s.there.at(u); at >= 0 {
		return stored(s.f, at, s.units, u, s.buf), nil
	}
	if _, n := s.units.place(u); n == 0 {
		return s.buf[:0], nil
	}
	return nil, nil
}

func (s *storedFeed) ahead() int64 { return 0 }

func (s *storedFeed) Close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}

// A streamFeed reads the units that are needed from the remote file: a run of
// neighbours is one range.
type streamFeed struct {
	p     *plan
	units units
	need  []bool // by unit: not yet delivered
	asked int    // the unit that was asked for last
	buf   []byte

	run     io.ReadCloser
	at, end int64 // of the run, in the payload
	base    int64 // of the payload when the run was opened
}

func newStreamFeed(p *plan, all units, need iter.Seq[int], buf []byte) *streamFeed {
	s := &streamFeed{p: p, units: all, need: make([]bool, all.count()), asked: nth(all, 0), buf: buf}
	for u := range need {
		s.need[u] = true
	}
	return s
}

func (s *streamFeed) next(ctx context.Context, u int) ([]byte, error) {
	if !s.need[u] {
		return nil, nil // it was delivered
	}
	s.asked = u
	off, n := s.units.place(u)
	b := s.buf[:n]
	if n == 0 {
		s.need[u] = false
		return b, nil
	}
	for {
		err := s.seek(ctx, off)
		if err == nil {
			var n int
			n, err = io.ReadFull(s.run, b)
			s.at += int64(n)
		}
		if err == nil {
			s.need[u] = false
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
	if s.run != nil && s.at <= off && off < s.end && s.base == s.p.base {
		n, err := io.CopyN(io.Discard, s.run, off-s.at)
		s.at += n
		return err
	}
	s.Close()
	if err := s.p.connect(); err != nil {
		return err
	}
	wanted, _ := first(join(s.units, s.left(), off))
	n := wanted.n
	if err := s.p.within(n); err != nil {
		return err
	}
	run, err := s.p.remote.Range(ctx, s.p.base+off, n)
	if err != nil {
		return err
	}
	s.run, s.at, s.end, s.base = run, off, off+n, s.p.base
	return nil
}

// left yields what was not delivered from the unit on that was asked for last:
// those before it were not of use.
func (s *streamFeed) left() iter.Seq[int] { return inOrder(s.units, s.need, s.asked) }

func (s *streamFeed) ahead() int64 { return length(join(s.units, s.left(), 0)) }

func (s *streamFeed) Close() error {
	if s.run == nil {
		return nil
	}
	err := s.run.Close()
	s.run = nil
	return err
}
