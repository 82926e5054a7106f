// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"fmt"
	"slices"

	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// maxRounds is how often a stored download is verified before the medium that
// it is stored on is given up.
const maxRounds = 4

// Download fetches and authenticates all that a release in store mode needs and
// that is neither stored nor in the target slot already.
func (e *Engine) Download(ctx context.Context, r *update.Release, report func(update.Progress)) error {
	p, err := e.planOf(ctx, r)
	if err == nil && p.key.mode == ModeStore {
		err = p.download(ctx, r.Job, report)
	}
	if err != nil {
		return fmt.Errorf("download bundle: %w", err)
	}
	return nil
}

func (p *plan) download(ctx context.Context, job uint64, report func(update.Progress)) error {
	if err := p.e.store.prune(p, p.e.o.Records()); err != nil {
		return unstored(err)
	}
	p.begin(job)
	defer p.remember()
	if err := p.e.store.saveHead(p); err != nil {
		return unstored(err)
	}
	longest := int64(0)
	images := slices.DeleteFunc(slices.Clone(p.images), func(img *image) bool { return img.origin != "" })
	for _, img := range images {
		if err := p.tables(ctx, img); err != nil {
			return fmt.Errorf("slot %s: tables: %w", img.slot, err)
		}
		longest = max(longest, img.MaxEncoded())
	}
	buf := make([]byte, longest)
	stocks := make([]*stock, len(images))
	var tables, kept, wanted int64
	for i, img := range images {
		s, err := p.survey(ctx, img, buf)
		if err != nil {
			return fmt.Errorf("slot %s: %w", img.slot, err)
		}
		stocks[i] = s
		tables += img.Chunks.Length + img.recipe.Table.Length
		kept += s.kept()
		wanted += length(s.wanted())
	}
	if err := p.fits(tables+kept, wanted); err != nil {
		return err
	}
	if err := p.within(wanted); err != nil {
		return err
	}
	total, done, shown := tables+kept+wanted, tables, int64(0)
	tell := func(done int64) {
		// What a bridge or a bad chunk brings twice is no progress.
		shown = max(shown, min(done, total))
		report(update.Progress{Stage: "download", Done: shown, Total: total, Fetched: p.spent()})
	}
	tell(done)
	for i, s := range stocks {
		if err := s.fetch(ctx, func(n int64) { tell(done + n) }); err != nil {
			return fmt.Errorf("slot %s: data: %w", images[i].slot, err)
		}
		done += s.kept()
	}
	tell(total)
	return nil
}

// fits checks that n more bytes can be stored beside those that are.
func (p *plan) fits(have, n int64) error {
	if budget := p.e.o.StoreBudget; have+n > budget {
		return fail(update.NameNoSpace, "download of %d bytes exceeds the store budget of %d; use mode stream", have+n, budget)
	}
	free, err := p.e.store.free()
	if err != nil {
		return unstored(err)
	}
	if n > free {
		return fail(update.NameNoSpace, "download of %d more bytes does not fit into %s, which has room for %d; make room, or use mode stream", n, p.e.o.Dir, free)
	}
	return nil
}

// lost tells the network's faults, which may be recovered from, from those of the data directory.
func (p *plan) lost(ctx context.Context, err error) error {
	if changed(err) || truncated(err) {
		return p.recover(ctx, err)
	}
	return unstored(err)
}
