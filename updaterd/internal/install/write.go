// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// hold keeps the first block of chunk 0 until the end, also over a restart:
// otherwise the whole chunk would have to be made again for its sake.
func (s *slot) hold(chunk []byte) {
	s.held = bytes.Clone(chunk[:s.first()])
	if s.Encrypted() {
		return // nothing of the image is left beside the slot
	}
	// Best effort: without it a restart makes the chunk again.
	_ = s.store.save(storeKey(s.recipe), fileFirst, s.held)
}

// prepare clears the first block, so that from here to the end the slot cannot
// be taken for a system, not even with a boot environment that was lost.
func (w *work) prepare(_ context.Context, s *slot) error {
	if s.intact {
		return nil
	}
	zero := make([]byte, s.first())
	now := bytes.Repeat([]byte{1}, len(zero))
	if _, err := s.dev.ReadAt(now, 0); err == nil && bytes.Equal(now, zero) {
		return nil
	}
	if _, err := s.dev.WriteAt(zero, 0); err != nil {
		return medium("clear first block", 0, err)
	}
	if err := s.dev.Sync(); err != nil {
		return medium("clear first block", 0, err)
	}
	return nil
}

// write makes and writes the chunks that the slot does not have: first all that
// the recipe yields, then those that need the full recipe, so that neighbours
// among them are one range and their price is known before it is paid.
func (w *work) write(ctx context.Context, s *slot) error {
	if err := w.make(ctx, s, s.feed, s.need); err != nil {
		return err
	}
	s.inline = true
	if len(s.unfit) == 0 {
		return nil
	}
	if err := w.p.fullTable(ctx, s.image); err != nil {
		return err
	}
	entries := s.entries
	s.entries = s.full
	defer func() { s.entries = entries }()
	feed := newStreamFeed(w.p, chunkUnits(s.full), slices.Values(s.unfit), w.encoded)
	defer feed.Close()
	if err := w.p.within(w.ahead() + feed.ahead()); err != nil {
		return fmt.Errorf("%d chunks have to come from the full recipe, because the source is not what the delta was made for: %w", len(s.unfit), err)
	}
	return w.make(ctx, s, feed, s.unfit)
}

// ahead is what is still to be fetched for all slots.
func (w *work) ahead() (n int64) {
	for _, s := range w.slots {
		if s.feed != nil {
			n += s.feed.ahead()
		}
	}
	return n
}

// make makes and writes a list of chunks whose encoded bytes come from a feed.
func (w *work) make(ctx context.Context, s *slot, f feed, list []int) (err error) {
	defer func() {
		// What went wrong with the chunk before came first.
		if unwritten := w.settle(s); unwritten != nil {
			err = unwritten
		}
	}()
	for _, i := range list {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if s.frames != nil {
			// Some may be read from this slot.
			if err := w.settle(s); err != nil {
				return err
			}
		}
		b, err := w.produce(ctx, s, f, i)
		if errors.Is(err, errUnfit) {
			s.unfit = append(s.unfit, i)
			continue
		}
		if err != nil {
			return fmt.Errorf("chunk %d: %w", i, err)
		}
		s.window.Keep(i)
		w.p.achieved()
		if err := w.settle(s); err != nil {
			return err
		}
		if s.frames == nil && s.entries[i].Kind == bundle.Patch {
			w.stats.Reused += int64(len(b))
		}
		w.begin(s, i, b)
	}
	return nil
}

// produce makes chunk i in its place in the window.
func (w *work) produce(ctx context.Context, s *slot, f feed, i int) ([]byte, error) {
	if s.booted != nil {
		return w.copied(s, i)
	}
	if s.frames != nil {
		return w.assemble(ctx, s, f, i)
	}
	enc, err := f.next(ctx, i)
	if err != nil {
		return nil, err
	}
	return w.decode(ctx, s, i, enc)
}

func (s *slot) sync() error {
	if err := s.dev.Sync(); err != nil {
		return fail(update.NameMedium, "flush: %w; the flash may be worn out", err)
	}
	s.dirty = 0
	return nil
}

// decode makes the content of chunk i in its place in the window from its encoded bytes, from
// anew fetched ones if those are bad, or from the full recipe if the source is.
func (w *work) decode(ctx context.Context, s *slot, i int, enc []byte) ([]byte, error) {
	e := s.entries[i]
	dst, err := w.expand(s, i, s.from(e), e, enc)
	if errors.Is(err, bundle.ErrEncoded) {
		if enc, err = w.p.chunk(ctx, e, w.encoded); err != nil {
			return nil, err
		}
		dst, err = w.expand(s, i, s.from(e), e, enc)
	}
	if err != nil && e.Kind == bundle.Patch {
		if e, err = w.fallback(ctx, s, i, err); err != nil {
			return nil, err
		}
		if enc, err = w.p.chunk(ctx, e, w.encoded); err != nil {
			return nil, fmt.Errorf("from the full recipe: %w", err)
		}
		dst, err = w.expand(s, i, s.from(e), e, enc)
	}
	if err != nil {
		return nil, distrusted(err)
	}
	return dst, nil
}

// from is the recipe that an entry belongs to: the data of the full one is last.
func (s *slot) from(e bundle.Entry) *bundle.Recipe {
	if e.Offset >= s.Full().Data.Offset {
		return s.Full()
	}
	return s.recipe
}

// expand decodes chunk i by its entry e in recipe r.
func (w *work) expand(s *slot, i int, r *bundle.Recipe, e bundle.Entry, enc []byte) (dst []byte, err error) {
	var from bundle.Basis
	if s.source != nil {
		from.Source, from.SourceSize = s.source, s.recipe.Source.Size
	}
	if e.Kind == bundle.Prefixed {
		// All chunks before this one but chunk 0 are on the medium by now.
		if from.Prefix, err = s.window.Prefix(r, i, w.before(s)); err != nil {
			return nil, err
		}
	}
	dst = s.window.Place(i)
	return dst, w.dec.Decode(dst, s.digests[i], e, enc, from)
}

// errUnfit marks a chunk that has to wait for those from the full recipe.
var errUnfit = errors.New("source does not yield it")

// fallback decides about a chunk whose source is not what the delta was made
// for, and returns its entry in the full recipe.
func (w *work) fallback(ctx context.Context, s *slot, i int, cause error) (bundle.Entry, error) {
	var none bundle.Entry
	switch w.p.e.o.Fallback {
	case FallbackFail:
		return none, fail(update.NameSourceChanged, "%w; fallback is \"fail\"", cause)
	case FallbackWait:
		return none, fail(update.NameOverBudget, "%w; fallback is \"wait\": start the job again with a policy that allows the full recipe", cause)
	}
	if !s.inline {
		return none, errUnfit
	}
	if err := w.p.fullTable(ctx, s.image); err != nil {
		return none, err
	}
	return s.full[i], nil
}

// readBack reads the whole image from the medium. A chunk that is not what was
// written gets one more chance, because the first write may have met a sector
// that the medium has replaced since.
func (w *work) readBack(ctx context.Context, s *slot) error {
	if s.intact {
		w.progress(s.Size) // prescan read all of it
		return nil
	}
	if err := s.sync(); err != nil {
		return err
	}
	for next := 0; ; next++ {
		var cause, err error
		if next, cause, err = w.firstBad(ctx, s, next); err != nil || cause == nil {
			return err
		}
		if err := w.rewrite(ctx, s, next, cause); err != nil {
			return err
		}
		w.progress(int64(s.ChunkLength(next)))
	}
}

// firstBad reads back the chunks from number from on, up to one that is not what
// was written; cause is nil if there is none.
func (w *work) firstBad(ctx context.Context, s *slot, from int) (i int, cause, err error) {
	compare := func(l *look) {
		if l.err == nil {
			l.err = s.compare(l.i, l.b)
		}
	}
	for l := range w.looks(s, upwards(from, s.ChunkCount()), compare) {
		if ctx.Err() != nil {
			return l.i, nil, context.Cause(ctx)
		}
		if l.err != nil {
			return l.i, l.err, nil
		}
		w.progress(int64(len(l.b)))
	}
	return 0, nil, nil
}

// compare reports whether b, which was read, is chunk i. In place of the first
// block, which is not there yet, there must be zeros.
func (s *slot) compare(i int, b []byte) error {
	if i == 0 && s.held != nil {
		for _, c := range b[:len(s.held)] {
			if c != 0 {
				return errors.New("cleared block is not clear")
			}
		}
		copy(b, s.held)
	}
	if !s.is(i, b) {
		return errors.New("bytes read back differ from those written")
	}
	return nil
}

// reread reads chunk i back.
func (s *slot) reread(i int) error {
	b := s.window.Place(i)
	if _, err := s.dev.ReadAt(b, s.offset(i)); err != nil {
		return err
	}
	if err := s.compare(i, b); err != nil {
		return err
	}
	s.window.Keep(i)
	return nil
}

func (w *work) rewrite(ctx context.Context, s *slot, i int, cause error) error {
	b, err := w.produce(ctx, s, s.feed, i)
	if err != nil {
		return fmt.Errorf("chunk %d: %w", i, err)
	}
	stats, err := s.put(i, b)
	w.count(stats)
	if err != nil {
		return errors.Join(err, cause)
	}
	if i == 0 {
		if _, err := s.dev.WriteAt(make([]byte, s.first()), 0); err != nil {
			return medium("clear first block", 0, err)
		}
	}
	if err := s.sync(); err != nil {
		return err
	}
	if err := s.reread(i); err != nil {
		return medium("read back", s.offset(i), err)
	}
	return nil
}

// finish writes the first block, which makes the slot whole.
func (w *work) finish(_ context.Context, s *slot) error {
	if s.intact {
		return nil
	}
	held := s.held
	s.held = nil // compare wants all of chunk 0 from now on
	var cause error
	for range 2 {
		if _, err := s.dev.WriteAt(held, 0); err != nil {
			return medium("write first block", 0, err)
		}
		w.count(update.InstallStats{Written: int64(len(held)), Blocks: 1})
		if err := s.sync(); err != nil {
			return err
		}
		if cause = s.reread(0); cause == nil {
			return nil
		}
	}
	return medium("read back first block", 0, cause)
}
