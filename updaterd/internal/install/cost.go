// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"slices"

	"github.com/updaterd/updaterd/bootctl"
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

// An estimate is what the blocks recipes of a release were found to save, and
// holds for as long as nothing else is known of the slots.
type estimate struct {
	digest  bundle.Digest
	target  bootctl.Slot
	records []update.SlotRecord
	images  []image // with their tables; nobody changes these
	wasted  int64
}

// estimate finds out what the blocks recipes save: it takes their tables and a
// pass over the slots, unless that takes too long. A recipe that saves nothing
// is given up for the full one.
func (p *plan) estimate(ctx context.Context) error {
	records := slices.Clone(p.e.o.Records())
	if p.remote != nil && p.estimated(records) {
		return nil
	}
	known := true
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
		need := make([]bool, img.ChunkCount())
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
			known = false
			continue // all of it is the most that it can cost
		}
		data := length(join(img.units, found.missing(bundle.Order(img.ChunkCount())), 0))
		found.Close()
		img.data = min(img.data, data)
		if img.expected() >= full.Download(img.Image) {
			p.wasted += img.Chunks.Length + img.recipe.Table.Length
			*img = image{Image: img.Image, slot: img.slot, device: img.device, recipe: full, data: full.Data.Length}
		}
	}
	if p.heavy && known {
		n := &estimate{digest: p.verified.Digest, target: p.target, records: records, wasted: p.wasted}
		for _, img := range p.images {
			n.images = append(n.images, *img)
		}
		p.e.mu.Lock()
		p.e.latest = n
		p.e.mu.Unlock()
	}
	return nil
}

// estimated takes over what was found out about the same release before: whoever
// looks at it again pays neither for the tables nor with a pass over the slots.
func (p *plan) estimated(records []update.SlotRecord) bool {
	p.e.mu.Lock()
	was := p.e.latest
	p.e.mu.Unlock()
	if was == nil || was.digest != p.verified.Digest || was.target != p.target || !slices.Equal(was.records, records) {
		return false
	}
	for i, img := range p.images {
		if img.origin == "" { // what is carried over was read just now
			*img = was.images[i]
		}
	}
	p.wasted, p.heavy = was.wasted, true
	return true
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
