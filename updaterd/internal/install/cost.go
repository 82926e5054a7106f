// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"slices"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// count works out what the plan costs on the wire.
func (p *plan) count() {
	head := int64(len(p.head)) + p.wasted
	p.cost = update.Cost{Minimum: head, Expected: head, Maximum: head}
	for _, img := range p.images {
		p.cost.Maximum += img.recipe.Download(img.Image)
		p.cost.Expected += img.expected()
		if full := img.Full(); img.recipe != full && p.e.o.Fallback == FallbackFull {
			p.cost.Maximum += full.Table.Length + full.Data.Length
		}
	}
	if budget := p.e.o.ByteBudget; budget > 0 {
		p.cost.Maximum = min(p.cost.Maximum, max(budget, p.cost.Expected))
	}
}

// expected is what an image is expected to cost.
func (img *image) expected() int64 { return img.Chunks.Length + img.recipe.Table.Length + img.data }

// estimate finds out what the blocks recipes save: it takes their tables and a
// pass over the slots, unless that takes too long. A recipe that saves nothing
// is given up for the full one.
func (p *plan) estimate(ctx context.Context) error {
	for _, img := range p.images {
		if img.recipe.Kind != bundle.KindBlocks {
			continue
		}
		full := img.Full()
		if p.remote == nil {
			// It goes on as it was begun.
			stored := func(r *bundle.Recipe) bool {
				return p.e.store.load(storeKey(r), fileTable, r.Table.Length) != nil
			}
			if stored(full) && !stored(img.recipe) {
				img.recipe, img.data = full, full.Data.Length
			}
			continue
		}
		p.heavy = true
		if err := p.tables(ctx, img); err != nil {
			return err
		}
		all := slices.Collect(bundle.Order(img.ChunkCount()))
		need := make([]bool, len(all))
		for i := range need {
			need[i] = true
		}
		soon, cancel := context.WithTimeout(ctx, p.e.o.InspectTimeout/2)
		found, err := p.search(soon, img, need)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			continue // all of it is the most that it can cost
		}
		data := length(join(img.units, found.missing(all), 0))
		found.Close()
		img.data = min(img.data, data)
		if img.expected() >= full.Download(img.Image) {
			p.wasted += img.Chunks.Length + img.recipe.Table.Length
			*img = image{Image: img.Image, slot: img.slot, device: img.device, recipe: full, data: full.Data.Length}
		}
	}
	return nil
}

// settle works out what depends on the mode.
func (p *plan) settle() {
	if p.key.mode != ModeStream {
		return // a download that is stored already costs the envelope only
	}
	for _, img := range p.images {
		p.cost.Minimum += img.Chunks.Length + img.recipe.Table.Length
	}
}
