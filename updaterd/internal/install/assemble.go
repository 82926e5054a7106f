// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// lookup finds out where the frames of the needed chunks are, and yields those
// that neither slot has.
func (w *work) lookup(ctx context.Context, s *slot) (iter.Seq[int], error) {
	if len(s.need) == 0 {
		return slices.Values(s.need), nil
	}
	need := make([]bool, s.ChunkCount())
	for _, i := range s.need {
		need[i] = true
	}
	// The search takes memory, too, and no chunk is made meanwhile.
	room := len(w.content)
	w.content = nil
	for _, other := range w.slots {
		other.window = nil
	}
	var err error
	if s.found, err = w.p.search(ctx, s.image, need); err != nil {
		return nil, err
	}
	w.windows(room)
	return s.found.missing(slices.Values(s.need)), nil
}

// assemble makes chunk i, in its place in the window, of frames that the slots
// have and of those from a feed. A frame that was found and is not there when it
// is read is fetched, by policy.
func (w *work) assemble(ctx context.Context, s *slot, f feed, i int) ([]byte, error) {
	a := assembly{work: w, slot: s, i: i, lost: make(map[int][]byte)}
	for {
		if err := a.prefix(); err != nil {
			return nil, err
		}
		lost := a.reuse()
		if len(lost) == 0 {
			break
		}
		if err := a.replace(ctx, f, lost); err != nil {
			return nil, err
		}
	}
	err := a.decode(ctx, f)
	switch {
	case err != nil && !errors.Is(err, bundle.ErrContent):
		return nil, err
	case err == nil && bundle.Sum(a.dst) == s.digests[i]:
		w.stats.Reused += a.reused
		return a.dst, nil
	case a.reused == 0:
		if err == nil {
			err = fmt.Errorf("%w: its frames do not make it", bundle.ErrContent)
		}
		return nil, distrusted(err)
	}
	// Something was taken for what it is not, because it has the same hash.
	if w.p.e.o.Fallback != FallbackFull {
		return nil, a.refuse(fmt.Errorf("%w: reused frames do not make the chunk", bundle.ErrSource))
	}
	if err := w.p.fullTable(ctx, s.image); err != nil {
		return nil, err
	}
	enc, err := w.p.chunk(ctx, s.full[i], w.encoded)
	if err != nil {
		return nil, fmt.Errorf("from the full recipe: %w", err)
	}
	dst, err := w.expand(s, i, s.Full(), s.full[i], enc)
	return dst, distrusted(err)
}

// An assembly is one chunk while it is made of frames.
type assembly struct {
	*work
	*slot
	i      int
	dst    []byte
	lost   map[int][]byte // encoded bytes of frames that were found and are not there
	reused int64
}

func (a *assembly) unit(k int) int { return a.i*a.frames.per + k }

// reuses reports whether frame k is to be read from a slot.
func (a *assembly) reuses(k int) bool {
	if _, lost := a.lost[k]; lost || a.found == nil {
		return false // nothing was looked for if nothing was to be written
	}
	return a.found.has(a.unit(k))
}

// piece is the place of frame k.
func (a *assembly) piece(k int) []byte {
	at := int64(k) * a.recipe.Frame
	return a.dst[at : at+int64(a.FrameLength(a.recipe, a.i, k))]
}

// prefix sees to the chunks before this one, if a frame that is fetched needs them.
func (a *assembly) prefix() error {
	wanted := false
	for k, frame := range a.frames.Frames(a.i) {
		wanted = wanted || frame.Kind == bundle.Prefixed && !a.reuses(k)
	}
	if wanted && a.i > 1 {
		if _, err := a.window.Prefix(a.recipe, a.i, a.before(a.slot)); err != nil {
			return err
		}
	}
	a.dst = a.window.Place(a.i)
	return nil
}

// reuse reads the frames that were found, and lists those that are not there.
func (a *assembly) reuse() (lost []int) {
	a.reused = 0
	for k := range a.frames.Frames(a.i) {
		if !a.reuses(k) {
			continue
		}
		if a.found.read(a.unit(k), a.piece(k)) == nil {
			lost = append(lost, k)
			continue
		}
		a.reused += a.recipe.Frame
	}
	return lost
}

// replace gets the encoded bytes of lost frames: Download may have found that
// they are lost, and stored them; otherwise they are fetched, neighbours in one
// range.
func (a *assembly) replace(ctx context.Context, f feed, lost []int) error {
	if stored, ok := f.(*storedFeed); ok {
		left := lost[:0]
		for _, k := range lost {
			enc, err := stored.next(ctx, a.unit(k))
			if err != nil {
				return err
			}
			if enc == nil {
				left = append(left, k)
				continue
			}
			a.lost[k] = bytes.Clone(enc)
		}
		lost = left
	}
	if len(lost) == 0 {
		return nil
	}
	if a.p.e.o.Fallback != FallbackFull {
		return a.refuse(fmt.Errorf("%w: %d frames are not where they were found", bundle.ErrSource, len(lost)))
	}
	list := make([]int, len(lost))
	for n, k := range lost {
		list[n] = a.unit(k)
	}
	for r := range join(a.units, slices.Values(list), 0) {
		b := make([]byte, r.n)
		err := a.p.region(ctx, r.off, b, func(b []byte) error {
			for n, u := range list {
				off, length := a.units.place(u)
				if off < r.off || off+int64(length) > r.off+r.n {
					continue
				}
				enc := b[off-r.off : off-r.off+int64(length)]
				if !a.units.good(u, enc) {
					return bundle.ErrEncoded
				}
				a.lost[lost[n]] = enc
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// refuse is the error for frames that the policy does not let us fetch.
func (a *assembly) refuse(cause error) error {
	if a.p.e.o.Fallback == FallbackFail {
		return fail(update.NameSourceChanged, "%w; fallback is \"fail\"", cause)
	}
	return fail(update.NameOverBudget, "%w; fallback is \"wait\": start the job again with a policy that allows to fetch them", cause)
}

// decode makes the frames that are not reused, in order: each may refer to those
// before it.
func (a *assembly) decode(ctx context.Context, f feed) error {
	if a.frames.Zero(a.i) {
		clear(a.dst)
		return nil
	}
	for k, frame := range a.frames.Frames(a.i) {
		if a.reuses(k) {
			continue
		}
		enc, lost := a.lost[k]
		var err error
		if !lost {
			if enc, err = a.bytesOf(ctx, f, k, frame); err != nil {
				return fmt.Errorf("frame %d: %w", k, err)
			}
		}
		if err := a.dec.DecodeFrame(a.piece(k), frame, enc, a.window.FramePrefix(a.recipe, a.i, k)); err != nil {
			return fmt.Errorf("frame %d: %w", k, err)
		}
	}
	return nil
}

// bytesOf gets the encoded bytes of a frame from the feed, or anew if they are bad.
func (a *assembly) bytesOf(ctx context.Context, f feed, k int, frame bundle.Frame) ([]byte, error) {
	if frame.Length == 0 {
		return nil, nil
	}
	enc, err := f.next(ctx, a.unit(k))
	if err != nil || enc != nil && frame.Is(enc) {
		return enc, err
	}
	return a.p.unit(ctx, a.units, a.unit(k), a.work.encoded)
}
