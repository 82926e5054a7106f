// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// Verify reads the target slots from the medium and compares them with the
// release's image digests. It needs neither the store nor the network.
func (e *Engine) Verify(ctx context.Context, r *update.Release, report func(update.Progress)) error {
	if len(r.Images) == 0 {
		return fail(update.NameInternal, "verify slots: release %s names no images", r.Version)
	}
	progress := update.Progress{Stage: "verify"}
	for _, img := range r.Images {
		progress.Total += img.Size
	}
	for _, img := range r.Images {
		tell := func(n int) {
			progress.Done += int64(n)
			report(progress)
		}
		if err := e.verifySlot(ctx, r, img, tell); err != nil {
			return fmt.Errorf("verify slot %s: %w", slotName(img.Class, r.Target), err)
		}
	}
	return nil
}

func (e *Engine) verifySlot(ctx context.Context, r *update.Release, img update.ReleaseImage, tell func(int)) error {
	dev, err := e.open(e.o.Slots[img.Class][r.Target], false)
	if err != nil {
		return named(update.NameMedium, err)
	}
	defer dev.Close()
	if img.Size > dev.Size() {
		return fail(update.NameTooLarge, "image has %d bytes, slot has %d", img.Size, dev.Size())
	}
	hash := sha256.New()
	buf := make([]byte, bundle.DefaultChunkSize)
	for off := int64(0); off < img.Size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b := buf[:min(int64(len(buf)), img.Size-off)]
		if _, err := dev.ReadAt(b, off); err != nil {
			return medium("read", off, err)
		}
		hash.Write(b)
		off += int64(len(b))
		tell(len(b))
	}
	if got := bundle.Digest(hash.Sum(nil)).String(); got != img.Digest {
		return fail(update.NameMedium, "holds %s, the release's image is %s; install it again", got, img.Digest)
	}
	return nil
}
