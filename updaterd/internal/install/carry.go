// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// carryOver makes images of what the booted slots hold of the classes for which
// a release has none. All slots of a set are started together: without a copy,
// what an older release left in the target's slots would come back into use.
func (e *Engine) carryOver(ctx context.Context, m *bundle.Manifest, target bootctl.Slot) ([]*image, error) {
	var list []*image
	for _, class := range slices.Sorted(maps.Keys(e.o.Slots)) {
		if slices.ContainsFunc(m.Images, func(img bundle.Image) bool { return img.Class == class }) {
			continue
		}
		img, err := e.carry(ctx, class, target)
		if err != nil {
			return nil, fmt.Errorf("bundle has no image of class %q, and slot %s cannot be carried over: %w", class, slotName(class, target.Other()), err)
		}
		list = append(list, img)
	}
	return list, nil
}

// carry reads a booted slot and makes an image of it: its first bytes, if a
// record says how many are of use, or all of it.
func (e *Engine) carry(ctx context.Context, class string, target bootctl.Slot) (*image, error) {
	booted := target.Other()
	device := e.o.Slots[class][target]
	room, err := e.deviceSize(device, booted)
	if err != nil {
		return nil, err
	}
	source := e.o.Slots[class][booted]
	dev, err := e.exclusive(source)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	var known update.SlotRecord
	for _, r := range e.o.Records() {
		if r.Slot == booted && r.Class == class && r.Digest != "" {
			known = r
		}
	}
	size := dev.Size()
	if known.Digest != "" {
		size = min(size, known.Size)
	}
	if size > room {
		return nil, fail(update.NameTooLarge, "it has %d bytes, slot %s has %d; make a bundle with an image of that class", size, slotName(class, target), room)
	}
	img := &image{slot: slotName(class, target), device: device, origin: source, Image: &bundle.Image{
		Class: class, Size: size, ChunkSize: bundle.DefaultChunkSize, BuildID: known.BuildID, Recipes: []bundle.Recipe{{Kind: update.RecipeCarried}},
	}}
	if err := img.survey(ctx, dev); err != nil {
		return nil, err
	}
	if known.Digest != "" && known.Digest != img.Digest.String() {
		return nil, fail(update.NameSourceChanged, "it holds %s, and %s was installed; make a bundle with an image of that class", img.Digest, known.Digest)
	}
	return img, nil
}

// exclusive opens a booted slot that nobody may have mounted: what changes
// while it is read is no image.
func (e *Engine) exclusive(path string) (device, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	// Install, if it is at work, has it to itself already.
	dev, err := e.open(path, !e.claimed[path])
	if err != nil {
		return nil, named(update.NameBadState, fmt.Errorf("%w; make a bundle with an image of that class", err))
	}
	return dev, nil
}

// survey reads the whole image and keeps the digests of its chunks.
func (img *image) survey(ctx context.Context, dev device) error {
	buf := make([]byte, img.ChunkSize)
	whole := sha256.New()
	var table []byte
	for i := range img.ChunkCount() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b := buf[:img.ChunkLength(i)]
		if _, err := dev.ReadAt(b, int64(i)*img.ChunkSize); err != nil {
			return medium("read", int64(i)*img.ChunkSize, err)
		}
		whole.Write(b)
		d := bundle.Sum(b)
		img.digests = append(img.digests, d)
		table = append(table, d[:]...)
		// It is reused as a patch without differences would be.
		img.entries = append(img.entries, bundle.Entry{Kind: bundle.Patch})
	}
	img.Digest = bundle.Digest(whole.Sum(nil))
	img.zeros = bundle.Sum(make([]byte, img.ChunkSize))
	img.recipe = &img.Recipes[0]
	img.recipe.Table.Digest = bundle.Sum(append(table, img.slot...)) // its place in the store
	return nil
}

// copied reads chunk i from the booted slot into its place in the window.
func (w *work) copied(s *slot, i int) ([]byte, error) {
	b := s.window.Place(i)
	if _, err := s.booted.ReadAt(b, s.offset(i)); err != nil {
		return nil, medium("read slot "+slotName(s.Class, w.p.target.Other()), s.offset(i), err)
	}
	if !s.is(i, b) {
		return nil, fail(update.NameSourceChanged, "%w; install again", errMoved)
	}
	return b, nil
}

var errMoved = errors.New("the booted slot was changed while it was copied")
