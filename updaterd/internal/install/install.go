// SPDX-License-Identifier: Apache-2.0

package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

const (
	// firstBlock is what is cleared first and written last: without it no boot
	// loader takes the slot for a file system or a boot image.
	firstBlock = 4096
	// syncEvery bounds what a power cut takes of what was written.
	syncEvery = 8 << 20
)

// Install writes a release into its target slots, and resumes where an earlier
// Install ended, however it ended. Its statistics are good also with an error.
func (e *Engine) Install(ctx context.Context, r *update.Release, report func(update.Progress)) (update.InstallStats, error) {
	var stats update.InstallStats
	p, err := e.planOf(ctx, r)
	if err == nil {
		p.begin(r.Job)
		w := &work{p: p, report: report, total: p.size(), past: p.tally.Stats}
		err = w.run(ctx)
		stats = w.remember()
	}
	if err != nil {
		return stats, fmt.Errorf("install bundle: %w", err)
	}
	return stats, nil
}

// work is one run of Install.
type work struct {
	p      *plan
	report func(update.Progress)
	dec    *bundle.Decoder
	slots  []*slot
	stats  update.InstallStats
	past   update.InstallStats // of the same job, before a restart
	// The window of every slot, and one chunk of encoded bytes.
	content, encoded []byte
	behind           []byte // a copy of the chunk that is being written; none of large chunks
	kept             int    // checksums of blocks, of all slots

	stage       string
	done, total int64
}

// A slot is one target slot while it is written.
type slot struct {
	*image
	store  store
	dev    device
	source Source // nil unless the recipe is a delta
	booted device // nil unless it is carried over
	feed   feed
	// window has the content; the same memory in every slot.
	window *bundle.Window

	// entries are the recipe's, but for chunks that are taken from the full recipe.
	entries []bundle.Entry
	need    []int  // chunks to write, in order
	unfit   []int  // those of them that the source does not yield
	found   *found // where the frames of a blocks recipe are
	// inline: a chunk that is unfit is made at once, not with the others.
	inline bool
	// was has the checksums of the blocks of needed chunks, as they were read. Of
	// chunks that are unread they are to be had from the medium, by pieces.
	was    map[int][]uint32
	unread []bool
	piece  []byte
	// intact: all of the image is on the medium, first block included.
	intact bool
	// held is the image's first block while it is not in the slot.
	held  []byte
	dirty int64 // bytes written since the last sync
	// writing is the chunk that is on its way; until it has arrived, held, was and
	// dirty are its.
	writing   chan outcome
	unwritten error // why one did not arrive
}

// run does the phases one after the other for all slots, so that no slot gets
// its first block before every slot has been read back.
func (w *work) run(ctx context.Context) (err error) {
	defer w.close()
	if w.dec, err = bundle.NewDecoder(w.p.verified.Manifest); err != nil {
		return err
	}
	if w.p.key.mode == ModeStream {
		// Best effort: with them a restart can go on without asking for them again.
		if w.p.e.store.prune(w.p, w.p.e.o.Records()) == nil {
			_ = w.p.e.store.saveHead(w.p)
		}
	}
	var content, encoded, behind int64
	for _, img := range w.p.images {
		content = max(content, img.window())
		encoded = max(encoded, img.MaxEncoded())
		// A chunk that is made of frames waits for the one before it anyway.
		if img.ChunkSize <= behindLimit && img.recipe.Kind != bundle.KindBlocks {
			behind = max(behind, img.ChunkSize)
		}
	}
	w.behind = make([]byte, behind)
	w.encoded = aligned(int(encoded))
	for _, img := range w.p.images {
		if err := w.p.tables(ctx, img); err != nil {
			return fmt.Errorf("slot %s: tables: %w", img.slot, err)
		}
		if err := w.open(img); err != nil {
			return fmt.Errorf("slot %s: %w", img.slot, err)
		}
	}
	w.windows(int(content))
	for _, phase := range []struct {
		stage string
		do    func(context.Context, *slot) error
	}{
		{"compare", w.prescan},
		{"install", w.supply},
		{"", w.prepare}, // the first block of every slot is cleared before a byte is written
		{"", w.write},
		{"verify", w.readBack},
		{"", w.finish},
	} {
		switch w.stage = cmp.Or(phase.stage, w.stage); phase.stage {
		case "compare", "verify":
			w.done = 0
		case "install":
			w.done = w.total - w.needed()
		}
		for _, s := range w.slots {
			s.window.Reset() // another slot had the memory
			if err := phase.do(ctx, s); err != nil {
				return fmt.Errorf("slot %s: %w", s.slot, err)
			}
		}
	}
	return nil
}

// account stores the tally if much was done since it was stored last.
func (w *work) account() {
	last := w.p.tally.Stats
	if w.p.spent()-last.Fetched >= tallyEvery || w.past.Written+w.stats.Written-last.Written >= tallyWritten {
		w.remember()
	}
}

// remember stores what the job has cost so far, and returns it.
func (w *work) remember() update.InstallStats {
	all := w.stats
	all.Written += w.past.Written
	all.Blocks += w.past.Blocks
	all.Reused += w.past.Reused
	// What this job wrote before a restart was found in place, and is not unchanged.
	all.Unchanged = max(0, all.Unchanged-w.past.Written)
	w.p.tally.Stats = all
	w.p.remember()
	return w.p.tally.Stats
}

// windows takes n bytes for the windows of all slots: one at a time uses them.
func (w *work) windows(n int) {
	w.content = aligned(n)
	for _, s := range w.slots {
		s.window = bundle.NewWindow(s.Image, w.content[:s.image.window()])
	}
}

func (w *work) open(img *image) error {
	dev, err := w.p.e.claim(img.device)
	if err != nil {
		return err
	}
	s := &slot{image: img, store: w.p.e.store, dev: dev, entries: img.entries, was: make(map[int][]uint32)}
	w.slots = append(w.slots, s)
	if img.Size > dev.Size() {
		return fail(update.NameTooLarge, "image has %d bytes, %s has %d", img.Size, img.device, dev.Size())
	}
	if img.origin != "" {
		if s.booted, err = w.p.e.claim(img.origin); err != nil {
			return err
		}
	}
	if img.source != "" {
		// Without a source every chunk is taken care of as one that does not fit.
		if source, err := w.p.e.o.Devices.Source(img.source); err == nil {
			s.source = source
		}
	}
	return nil
}

func (w *work) close() {
	for _, s := range w.slots {
		s.dev.Close()
		w.p.e.release(s.device)
		if s.source != nil {
			s.source.Close()
		}
		if s.booted != nil {
			s.booted.Close()
			w.p.e.release(s.origin)
		}
		if s.feed != nil {
			s.feed.Close()
		}
		if s.found != nil {
			s.found.Close()
		}
	}
	if w.dec != nil {
		w.dec.Close()
	}
}

func (w *work) progress(n int64) {
	w.done += n
	w.report(update.Progress{Stage: w.stage, Done: w.done, Total: w.total, Fetched: w.p.spent()})
}

// needed is how many bytes are to be written.
func (w *work) needed() int64 {
	var n int64
	for _, s := range w.slots {
		for _, i := range s.need {
			n += int64(s.ChunkLength(i))
		}
	}
	return n
}

// medium is the error for a slot that cannot be read or written.
func medium(verb string, off int64, err error) error {
	return fail(update.NameMedium, "%s at offset %d: %w; the flash may be worn out", verb, off, err)
}

// first is the length of the image's first block.
func (s *slot) first() int { return min(firstBlock, s.ChunkLength(0)) }

func (s *slot) offset(i int) int64 { return int64(i) * s.ChunkSize }

// before reads a chunk because a chunk after it is made from it, too. Here it is
// only in the way of a slot that does not keep what was found or written there.
func (w *work) before(s *slot) func(j int, b []byte) error {
	return func(j int, b []byte) error {
		err := w.settle(s)
		if err == nil {
			_, err = s.dev.ReadAt(b, s.offset(j))
		}
		if err == nil && bundle.Sum(b) != s.digests[j] {
			err = errors.New("bytes read back differ from those written")
		}
		if err != nil {
			return medium("read back", s.offset(j), err)
		}
		return nil
	}
}

// prescan finds out which chunks are in the slot already, by reading the
// medium: nothing is believed because it was written once.
func (w *work) prescan(ctx context.Context, s *slot) error {
	wanted := true
	var chunk0 []byte
	examine := func(l *look) {
		if l.err == nil && !s.is(l.i, l.b) {
			l.was = checksums(l.b)
		}
	}
	for l := range w.looks(s, bundle.Order(s.ChunkCount()), examine) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w.progress(int64(s.ChunkLength(l.i)))
		// What cannot be read is written; the read-back has the last word.
		found := l.err == nil && l.was == nil
		if l.i == 0 {
			wanted = !found
			found = found || l.err == nil && s.restored(l.b)
			chunk0 = l.b
		}
		if !found {
			if l.was != nil {
				w.keep(s, l.i, l.was)
			}
			s.need = append(s.need, l.i)
			continue
		}
		w.stats.Unchanged += int64(len(l.b))
	}
	s.intact = len(s.need) == 0 && !wanted
	if !s.intact && !wanted {
		// Chunk 0 stays, but its first block has to wait until the end.
		s.hold(chunk0)
	}
	if s.held != nil {
		w.stats.Unchanged -= int64(len(s.held)) // it is written again
	}
	return nil
}

// restored reports whether b is chunk 0 as soon as it has the first block that
// an earlier run put aside.
func (s *slot) restored(b []byte) bool {
	// The store is not believed either: the digest covers both parts.
	saved := s.store.load(storeKey(s.recipe), fileFirst, int64(s.first()))
	if saved == nil {
		return false
	}
	copy(b, saved)
	if bundle.Sum(b) != s.digests[0] {
		return false
	}
	s.held = saved
	return true
}
