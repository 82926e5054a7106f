// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"errors"
	"fmt"

	"github.com/updaterd/updaterd/bundle/blocks"
)

// search looks in every source for the frames of the blocks recipe.
func (w *applier) search(ctx context.Context, r *Recipe) error {
	b, err := w.read(nil, r.Table.Offset, r.Table.Length)
	if err != nil {
		return err
	}
	if w.frames, err = ParseFrames(w.img, r, w.digests, b); err != nil {
		return err
	}
	w.found = blocks.NewSearch(r.Frame, w.frames.Contents())
	for i, src := range w.sources {
		if err := blocks.Scan(ctx, src, src.size, w.found.In(i)); err != nil {
			return fmt.Errorf("%s: %w", src.Name(), err)
		}
	}
	w.Fetched = w.img.Chunks.Length + r.Table.Length
	for run := range blocks.Ranges(w.frames.missing(w.found), blocks.Gap) {
		w.Requests++
		w.Fetched += run.Length
	}
	return nil
}

// assemble makes chunk i from the sources and the missing frames. If that is not
// what it should be, something was taken for what it is not; then every frame
// comes from the bundle.
func (w *applier) assemble(i int) ([]byte, error) {
	dst, reused, err := w.fill(i, true)
	if err == nil || !errors.Is(err, ErrSource) {
		w.Reused += reused
		return dst, err
	}
	w.Fallback++
	for _, f := range w.frames.Frames(i) {
		w.Fetched += int64(f.Length)
		w.FallbackBytes += int64(f.Length)
	}
	dst, _, err = w.fill(i, false)
	return dst, err
}

func (w *applier) fill(i int, reuse bool) (dst []byte, reused int, err error) {
	r := w.img.Blocks()
	if i >= firstPrefixed {
		if _, err := w.window.Prefix(r, i, notAtHand); err != nil {
			return nil, 0, err
		}
	}
	dst = w.window.Place(i)
	clear(dst)
	for k, f := range w.frames.Frames(i) {
		at := int64(k) * r.Frame
		b := dst[at : at+int64(w.img.FrameLength(r, i, k))]
		if reuse && w.reuse(f, b) {
			reused++
			continue
		}
		if w.enc, err = w.read(w.enc, f.Offset, int64(f.Length)); err != nil {
			return nil, 0, err
		}
		if err := w.decoder.DecodeFrame(b, f, w.enc, w.window.FramePrefix(r, i, k)); err != nil {
			if reused > 0 && errors.Is(err, ErrContent) {
				err = fmt.Errorf("%w: %v", ErrSource, err) // its prefix may be wrong
			}
			return nil, 0, fmt.Errorf("frame %d: %w", k, err)
		}
	}
	if got := Sum(dst); got != w.digests[i] {
		cause := ErrContent
		if reused > 0 {
			cause = ErrSource
		}
		return nil, 0, fmt.Errorf("%w: digest is %v, the chunk table says %v", cause, got, w.digests[i])
	}
	return dst, reused, nil
}

// reuse reads a frame from where it was found.
func (w *applier) reuse(f Frame, b []byte) bool {
	place, ok := w.found.Find(f.Content)
	if !ok {
		return false
	}
	_, err := w.sources[place.Source].ReadAt(b, place.Offset)
	return err == nil
}
