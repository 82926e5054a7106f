// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"

	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// A stock is what of one image's recipe is at hand: stored, or in the target
// slot already. Its data file holds runs of units in the order in which they
// were fetched; the file of runs says which. The runs are written before the
// data, and nothing in either is believed: what counts is a unit whose digest
// matches, so whatever a power cut leaves of the two costs bytes at most.
type stock struct {
	p    *plan
	img  *image
	path string // of the data file
	runs []run  // what it holds
	size int64  // its length up to the last good unit
	good []bool // units that it has, verified
	here []bool // units that need not come: the slots have what they are for
	buf  []byte // one chunk
}

func (p *plan) newStock(img *image, buf []byte) *stock {
	path := p.e.store.path(storeKey(img.recipe), fileData)
	return &stock{p: p, img: img, path: path, buf: buf, good: make([]bool, img.units.count()), here: make([]bool, img.units.count())}
}

// survey finds out what is at hand. The slot is read only for chunks that are
// not stored: it may be large.
func (p *plan) survey(ctx context.Context, img *image, buf []byte) (*stock, error) {
	s := p.newStock(img, buf)
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	return s, s.look(ctx)
}

// restock fetches and stores units that Download did not store.
func (p *plan) restock(ctx context.Context, img *image, list iter.Seq[int], buf []byte) error {
	s := p.newStock(img, buf)
	for i := range s.here {
		s.here[i] = true
	}
	for u := range list {
		s.here[u] = false
	}
	if err := s.check(ctx); err != nil {
		return err
	}
	need := length(s.wanted())
	if err := p.fits(s.kept(), need); err != nil {
		return err
	}
	if err := p.within(need); err != nil {
		return err
	}
	return s.fetch(ctx, func(int64) {})
}

// runsOf reads what the data file of a recipe is said to hold.
func (s store) runsOf(img *image) []run {
	// More runs than twice the units are not worth their bookkeeping.
	limit := int64(2*img.units.count()+64) * runSize
	return parseRuns(s.read(s.path(storeKey(img.recipe), fileRuns), limit), img.recipe.Data.Length)
}

// check verifies what is stored.
func (s *stock) check(ctx context.Context) error {
	s.runs, s.size = s.p.e.store.runsOf(s.img), 0
	clear(s.good)
	f, err := s.p.e.store.files.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		s.runs = nil
		return nil
	}
	if err != nil {
		return unstored(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return unstored(err)
	}
	there := s.img.locate(s.runs, info.Size())
	for u := range s.good {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		at := there.at(u)
		if at < 0 {
			continue
		}
		if b := stored(f, at, s.img.units, u, s.buf); b != nil {
			s.good[u], s.size = true, max(s.size, at+int64(len(b)))
		}
	}
	// Behind the last good unit is part of one at most, and not worth keeping.
	s.runs = cutAt(s.runs, s.size)
	return nil
}

// stored reads the encoded bytes of a unit into buf; nil if the medium does not
// give them back, or gives back something else.
func stored(f io.ReaderAt, at int64, all units, u int, buf []byte) []byte {
	_, n := all.place(u)
	if _, err := f.ReadAt(buf[:n], at); err != nil || !all.good(u, buf[:n]) {
		return nil
	}
	return buf[:n]
}

// look finds out which units need not come. The target slot is read only for
// chunks of which something is not stored.
func (s *stock) look(ctx context.Context) error {
	missing := s.missing()
	if _, some := first(missing); !some {
		return nil
	}
	per := s.img.units.perChunk()
	dev, err := s.p.e.open(s.img.device, false)
	if err != nil {
		return nil // then nothing is there; Install will say what is wrong with it
	}
	defer dev.Close()
	// What is not known to be in place counts as going to be overwritten.
	need := make([]bool, s.img.ChunkCount())
	for i := range need {
		need[i] = true
	}
	last := -1
	for u := range missing {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		i := u / per
		if i != last {
			b := s.buf[:s.img.ChunkLength(i)]
			_, err := dev.ReadAt(b, int64(i)*s.img.ChunkSize)
			need[i], last = err != nil || !s.img.is(i, b), i
		}
		s.here[u] = !need[i]
	}
	if s.img.frames == nil {
		return nil
	}
	found, err := s.p.search(ctx, s.img, need)
	if err != nil {
		return err
	}
	defer found.Close()
	for u := range s.missing() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.here[u] = found.read(u, s.buf) != nil
	}
	return nil
}

// missing yields the units that have to be fetched, in the order of the data.
func (s *stock) missing() iter.Seq[int] {
	return func(yield func(int) bool) {
		for k := range s.good {
			u := nth(s.img.units, k)
			if s.good[u] || s.here[u] {
				continue
			}
			if _, n := s.img.units.place(u); n > 0 && !yield(u) {
				return
			}
		}
	}
}

// wanted yields the runs that have to be fetched.
func (s *stock) wanted() iter.Seq[run] {
	return join(s.img.units, s.missing(), s.img.recipe.Data.Offset)
}

// kept is the number of stored bytes that are good.
func (s *stock) kept() (n int64) {
	for u, good := range s.good {
		if good {
			_, length := s.img.units.place(u)
			n += int64(length)
		}
	}
	return n
}

// fetch stores what is missing. It ends only after every chunk of it was read
// back from the file and found to be what was signed. tell gets the bytes that
// are stored.
func (s *stock) fetch(ctx context.Context, tell func(int64)) error {
	for round := 0; round < maxRounds; {
		tell(s.kept())
		wanted := slices.Collect(s.wanted())
		if len(wanted) == 0 {
			return nil
		}
		before := s.p.fetched()
		err := s.save(ctx, wanted, tell)
		if s.p.fetched() > before {
			s.p.achieved()
		}
		if err != nil {
			if err := s.p.lost(ctx, err); err != nil {
				return err
			}
		}
		if err := s.check(ctx); err != nil { // what came is verified before it counts
			return err
		}
		u, some := first(s.missing())
		if err != nil || !some {
			continue
		}
		// It came, and is not what was signed. Whose fault it is, the link's, the
		// server's or that of the medium with the store, one chunk shows.
		if _, err := s.p.unit(ctx, s.img.units, u, s.buf); err != nil {
			return fmt.Errorf("chunk %d: %w", u/s.img.units.perChunk(), err)
		}
		round++
	}
	return fail(update.NameMedium, "%s does not hold what is written to it", s.path)
}

// save appends runs to the data file, each in one range.
func (s *stock) save(ctx context.Context, wanted []run, tell func(int64)) error {
	if err := s.p.connect(); err != nil {
		return err
	}
	for _, r := range wanted {
		if k := len(s.runs) - 1; k >= 0 && s.runs[k].off+s.runs[k].n == r.off {
			s.runs[k].n += r.n // goes on where a fetch was interrupted
		} else {
			s.runs = append(s.runs, r)
		}
	}
	if err := s.p.e.store.save(storeKey(s.img.recipe), fileRuns, appendRuns(nil, s.runs)); err != nil {
		return unstored(err)
	}
	kept := s.kept() - s.size
	for _, r := range wanted {
		if err := s.p.within(r.n); err != nil {
			return err
		}
		// A file whose first s.size bytes are there, and whose rest is the run.
		off := s.p.base + s.img.recipe.Data.Offset + r.off - s.size
		if err := s.p.remote.Save(ctx, off, s.size+r.n, s.path, s.size, func(done int64) {
			s.p.account()
			tell(kept + done)
		}); err != nil {
			return err
		}
		s.size += r.n
	}
	return nil
}
