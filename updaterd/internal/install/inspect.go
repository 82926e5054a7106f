// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// Inspect opens ref, verifies it and checks that this device can install it
// into target. It changes nothing.
func (e *Engine) Inspect(ctx context.Context, ref string, target bootctl.Slot, opt update.InstallOptions) (*update.Release, error) {
	ctx, cancel := context.WithTimeout(ctx, e.o.InspectTimeout)
	defer cancel()
	p, err := e.fetchPlan(ctx, ref, target, opt.Mode, false)
	if err != nil {
		return nil, fmt.Errorf("inspect bundle: %w", err)
	}
	e.keep(p)
	return p.release(), nil
}

// Reopen is Inspect for a job that goes on after a restart. If the envelope of
// that very release is stored, it is verified again and no network is needed.
func (e *Engine) Reopen(ctx context.Context, ref, digest string, target bootctl.Slot, opt update.InstallOptions) (*update.Release, error) {
	p, err := e.storedPlan(ctx, ref, digest, target, opt.Mode)
	if err == nil && p == nil {
		p, err = e.fetchPlan(ctx, ref, target, opt.Mode, true)
	}
	if err == nil && p.verified.Digest.String() != digest {
		err = fail(update.NameMalformedBundle, "%s is now another release, %s; install that one as a new job", update.PublicRef(ref), p.verified.Manifest.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("reopen bundle: %w", err)
	}
	e.keep(p)
	return p.release(), nil
}

// fetchPlan asks the server; known tells that there was a bundle before.
func (e *Engine) fetchPlan(ctx context.Context, ref string, target bootctl.Slot, mode string, known bool) (*plan, error) {
	remote, err := e.o.Open(ref)
	if err != nil {
		return nil, named(update.NameBadArgument, err)
	}
	if known {
		remote.Verified()
	}
	head, err := readHead(ctx, remote)
	if err != nil {
		return nil, err
	}
	v, err := e.verify(head)
	if err != nil {
		return nil, err
	}
	// Closed world: a file of another length is not the one that was signed.
	if size, want := remote.Size(), v.PayloadOffset+v.PayloadSize; size >= 0 && size != want {
		cause := bundle.ErrTrailing
		if size < want {
			cause = bundle.ErrTruncated
		}
		return nil, fail(update.NameMalformedBundle, "%w: file has %d bytes, its manifest accounts for %d", cause, size, want)
	}
	remote.Verified()
	return e.plan(ctx, ref, remote, head, v, target, mode)
}

// storedPlan is nil without an error if nothing usable is stored.
func (e *Engine) storedPlan(ctx context.Context, ref, digest string, target bootctl.Slot, mode string) (*plan, error) {
	head, stored := e.store.loadHead(digest)
	if head == nil {
		return nil, nil
	}
	v, err := e.verify(head)
	if err != nil || v.Digest.String() != digest {
		// Damaged, or no longer trusted: let the server's copy decide.
		return nil, nil
	}
	if mode == "" || mode == ModeAuto {
		mode = stored
	}
	return e.plan(ctx, ref, nil, head, v, target, mode)
}

func (e *Engine) verify(head []byte) (*bundle.Verified, error) {
	policy, err := e.o.Policy()
	if err != nil {
		return nil, named(update.NameUntrustedSignature, err)
	}
	v, err := bundle.Verify(head, policy, e.o.TimeFloor())
	return v, distrusted(err)
}

// readHead reads the header and the envelope: one range each.
func readHead(ctx context.Context, remote Remote) ([]byte, error) {
	head := make([]byte, bundle.HeaderSize)
	if err := readRange(ctx, remote, 0, head); err != nil {
		return nil, tooShort(err)
	}
	n, err := bundle.ParseHeader(head)
	if err != nil {
		return nil, distrusted(err)
	}
	head = slices.Grow(head, n)[:bundle.HeaderSize+n]
	if err := readRange(ctx, remote, bundle.HeaderSize, head[bundle.HeaderSize:]); err != nil {
		return nil, tooShort(err)
	}
	return head, nil
}

// tooShort turns "there are no such bytes" into what it means for a bundle.
func tooShort(err error) error {
	if truncated(err) {
		return fail(update.NameMalformedBundle, "%w: %v", bundle.ErrTruncated, err)
	}
	return named(update.NameNetwork, err)
}

func readRange(ctx context.Context, remote Remote, off int64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	r, err := remote.Range(ctx, off, int64(len(b)))
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.ReadFull(r, b)
	return err
}

// plan checks a verified release against this device and decides how to install it.
func (e *Engine) plan(ctx context.Context, ref string, remote Remote, head []byte, v *bundle.Verified, target bootctl.Slot, mode string) (*plan, error) {
	m := v.Manifest
	if !slices.Contains(m.Compatible, e.o.Compatible) {
		return nil, fail(update.NameNotCompatible, "bundle is for %s, this device is %s", strings.Join(m.Compatible, ", "), e.o.Compatible)
	}
	if err := e.unlock(m); err != nil {
		return nil, err
	}
	if err := e.checkTarget(target); err != nil {
		return nil, err
	}
	p := &plan{e: e, key: planKey{ref: ref}, target: target, head: head, verified: v, base: v.PayloadOffset, remote: remote}
	for i := range m.Images {
		img, err := e.image(&m.Images[i], target)
		if err != nil {
			return nil, err
		}
		p.images = append(p.images, img)
	}
	carried, err := e.carryOver(ctx, m, target)
	if err != nil {
		return nil, err
	}
	p.images = append(p.images, carried...)
	if err := p.estimate(ctx); err != nil {
		return nil, err
	}
	p.count()
	// What is going on may have learnt since that it costs less.
	if budget := e.o.ByteBudget; budget > 0 && remote != nil && p.cost.Expected > budget {
		return nil, fail(update.NameOverBudget, "needs %d bytes, the byte budget is %d", p.cost.Expected, budget)
	}
	mode, err = e.mode(p, mode)
	if err != nil {
		return nil, err
	}
	p.key = planKey{ref: ref, digest: v.Digest.String(), target: target, mode: mode}
	p.settle()
	return p, nil
}

// unlock finds the key of a release that is encrypted.
func (e *Engine) unlock(m *bundle.Manifest) error {
	if m.Encryption == nil {
		return nil
	}
	if e.o.Identity == nil {
		return fail(update.NameNotARecipient, "%w; this device has none: see \"identity\" in updaterd.toml", bundle.ErrLocked)
	}
	id, err := e.o.Identity()
	if err != nil {
		return fail(update.NameNotARecipient, "the bundle is encrypted: %w", err)
	}
	err = m.Unlock(id)
	if errors.Is(err, bundle.ErrLocked) {
		return named(update.NameNotARecipient, err)
	}
	return distrusted(err)
}

// checkTarget makes sure that the running system is not what gets overwritten.
func (e *Engine) checkTarget(target bootctl.Slot) error {
	if !target.Valid() {
		return fail(update.NameBadArgument, "slot %q: want a or b", target)
	}
	booted, err := e.o.Booted()
	if err != nil {
		return named(update.NameBootedSlotUnproven, err)
	}
	if target == booted {
		return fail(update.NameBadState, "slot %s is the one this system runs from", target)
	}
	return nil
}

func (e *Engine) image(img *bundle.Image, target bootctl.Slot) (*image, error) {
	slots := e.o.Slots[img.Class]
	if slots == nil {
		return nil, fail(update.NameNotCompatible, "bundle has an image of class %q, for which this device has no slots", img.Class)
	}
	i := &image{Image: img, slot: slotName(img.Class, target), device: slots[target]}
	size, err := e.deviceSize(i.device, target.Other())
	if err != nil {
		return nil, fmt.Errorf("slot %s: %w", i.slot, err)
	}
	if img.Size > size {
		return nil, fail(update.NameTooLarge, "image of class %q has %d bytes, slot %s has %d", img.Class, img.Size, i.slot, size)
	}
	i.recipe, i.source = e.choose(img, target.Other())
	if !e.holds(target, img) {
		i.data = i.recipe.Data.Length
	}
	return i, nil
}

// deviceSize is the size of a target slot's device. It opens the device as for
// writing, which proves that nothing has it mounted.
func (e *Engine) deviceSize(path string, booted bootctl.Slot) (int64, error) {
	if _, ok := e.o.Regions[path]; ok {
		d, err := e.open(path, true)
		if err != nil {
			return 0, unopened(err)
		}
		defer d.Close()
		return d.Size(), nil
	}
	for class, slots := range e.o.Slots {
		same, err := e.o.Devices.Same(path, slots[booted])
		if err != nil {
			return 0, named(update.NameMedium, err)
		}
		if same {
			return 0, fail(update.NameBadState, "%s is the device of the booted slot %s, under another name", path, slotName(class, booted))
		}
	}
	// While an Inspect has the device open, Install must not find it in use.
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.claimed[path] {
		size, err := e.o.Devices.Size(path)
		return size, named(update.NameMedium, err)
	}
	d, err := e.open(path, true)
	if err != nil {
		return 0, unopened(err)
	}
	defer d.Close()
	return d.Size(), nil
}

// choose finds the cheapest recipe for what is in the booted slot, and the
// device that a delta reads. If the records are wrong the chunk digests tell
// later. Without a delta it is the blocks recipe, which works for any slots.
func (e *Engine) choose(img *bundle.Image, booted bootctl.Slot) (*bundle.Recipe, string) {
	best, device := img.Full(), ""
	for i := range img.Recipes {
		r := &img.Recipes[i]
		if r.Source == nil || r.Download(img) >= best.Download(img) || !e.suits(booted, img.Class, r.Source) {
			continue
		}
		path := e.o.Slots[img.Class][booted]
		if size, err := e.o.Devices.Size(path); err != nil || size < r.Source.Size {
			continue
		}
		best, device = r, path
	}
	if blocks := img.Blocks(); best == img.Full() && blocks != nil {
		return blocks, ""
	}
	return best, device
}

// holds reports whether a slot's record says that it has the image already.
func (e *Engine) holds(slot bootctl.Slot, img *bundle.Image) bool {
	return slices.ContainsFunc(e.o.Records(), func(r update.SlotRecord) bool {
		return r.Slot == slot && r.Class == img.Class && r.Digest == img.Digest.String()
	})
}

// suits reports whether a slot is believed to hold source: by its record, or,
// for a slot that was never written by us, by the build id of what runs from it.
func (e *Engine) suits(slot bootctl.Slot, class string, source *bundle.Source) bool {
	id := e.o.BuildID
	for _, r := range e.o.Records() {
		if r.Slot != slot || r.Class != class {
			continue
		}
		if r.Digest != "" {
			return r.Digest == source.Digest.String()
		}
		if r.BuildID != "" {
			id = r.BuildID
		}
	}
	return id != "" && id == source.BuildID
}

// mode decides between store and stream.
func (e *Engine) mode(p *plan, want string) (string, error) {
	if want == "" {
		want = e.o.Mode
	}
	if want == ModeStore && p.remote == nil {
		// It was begun, and Download checks what is still missing.
		return ModeStore, nil
	}
	need := p.cost.Expected - int64(len(p.head))
	room, err := e.store.room()
	switch want {
	case ModeStream:
		return ModeStream, nil
	case ModeStore:
		switch {
		case err != nil:
			return "", unstored(err)
		case need > e.o.StoreBudget:
			return "", fail(update.NameNoSpace, "download of %d bytes exceeds the store budget of %d; use mode stream", need, e.o.StoreBudget)
		case need > room:
			return "", fail(update.NameNoSpace, "download of %d bytes does not fit into %s, which has room for %d; make room, or use mode stream", need, e.o.Dir, room)
		}
		return ModeStore, nil
	case ModeAuto:
		if err == nil && need <= e.o.StoreBudget && need <= room {
			return ModeStore, nil
		}
		return ModeStream, nil
	}
	return "", fail(update.NameBadArgument, "mode %q: want auto, store or stream", want)
}

// planOf finds the plan of a release, or makes it again.
func (e *Engine) planOf(ctx context.Context, r *update.Release) (*plan, error) {
	if p := e.recall(planKey{ref: r.Ref, digest: r.Digest, target: r.Target, mode: r.Mode}); p != nil {
		return p, e.checkTarget(r.Target)
	}
	if _, err := e.Reopen(ctx, r.Ref, r.Digest, r.Target, update.InstallOptions{Mode: r.Mode}); err != nil {
		return nil, err
	}
	p := e.recall(planKey{ref: r.Ref, digest: r.Digest, target: r.Target, mode: r.Mode})
	if p == nil {
		return nil, errors.New("internal error: plan was dropped")
	}
	return p, nil
}
