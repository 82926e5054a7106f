// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"fmt"
	"os"

	"github.com/updaterd/updaterd/bundle/blocks"
	"golang.org/x/sync/errgroup"
)

// Applied tells how [File.Apply] made an image.
type Applied struct {
	// Recipe is the place in Image.Recipes of the one that was used, and Why
	// says in words what made it the choice.
	Recipe int
	Why    string
	Chunks int
	// Patched chunks came from a patch. Fallback chunks came from the full
	// recipe, because the source did not yield them.
	Patched, Fallback int
	// Reused frames came from a source, by a blocks recipe; the others took
	// Requests single ranges.
	Reused, Requests int
	// Fetched is what a device downloads for all this, tables included;
	// FallbackBytes is the part of it that an untouched source would have saved.
	Fetched, FallbackBytes int64
}

// Apply makes the image of a class and writes it to out, as a device does:
// every chunk is authenticated, decoded, compared, and only then written. With
// sources, which are paths of other images, it takes a delta that fits one of
// them, or else the blocks recipe; a chunk that does not come out right is made
// from the bundle alone.
func (f *File) Apply(ctx context.Context, class string, sources []string, out string, progress func(done, total int64)) (Applied, error) {
	img := f.Manifest.Image(class)
	if img == nil {
		return Applied{}, fmt.Errorf("apply: there is no image of class %q; the bundle has %s", class, f.Manifest.classes())
	}
	a, err := f.apply(ctx, img, sources, out, progress)
	if err != nil {
		return a, fmt.Errorf("apply image %q: %w", class, err)
	}
	return a, nil
}

func (f *File) apply(ctx context.Context, img *Image, sources []string, path string, progress func(done, total int64)) (Applied, error) {
	out, err := createReplacement(path)
	if err != nil {
		return Applied{}, err
	}
	defer out.discard()
	a, err := f.fill(ctx, img, sources, out.File, progress)
	if err != nil {
		return a, err
	}
	return a, out.commit()
}

// fill makes an image in out, an empty file, and reads it back.
func (f *File) fill(ctx context.Context, img *Image, sources []string, out *os.File, progress func(done, total int64)) (Applied, error) {
	d, err := NewDecoder(f.Manifest)
	if err != nil {
		return Applied{}, err
	}
	defer d.Close()
	// To its size at once: what is zero is never written.
	if err := out.Truncate(img.Size); err != nil {
		return Applied{}, err
	}
	w := &applier{File: f, img: img, out: sparse{out}, progress: progress, decoder: d}
	defer func() {
		for _, src := range w.sources {
			src.Close()
		}
	}()
	if err := w.choose(ctx, sources); err != nil {
		return Applied{}, err
	}
	if err := w.load(ctx); err != nil {
		return Applied{}, err
	}
	// Past all chunk digests, the whole image as it can be read back.
	w.echo = newEcho(out, img.ChunkSize, len(w.digests))
	var got Digest
	var back errgroup.Group
	back.Go(func() (err error) {
		got, err = w.echo.digest(img.Size)
		return err
	})
	err = w.write(ctx)
	w.echo.end()
	if unread := back.Wait(); err == nil {
		err = unread
	}
	if err != nil {
		return w.Applied, err
	}
	if got != img.Digest {
		return w.Applied, fmt.Errorf("%w: the whole image has digest %v, the manifest says %v", ErrContent, got, img.Digest)
	}
	return w.Applied, nil
}

type applier struct {
	*File
	Applied
	img         *Image
	out         sparse
	echo        *echo
	progress    func(done, total int64) // may be nil
	done        int64
	decoder     *Decoder
	window      *Window
	sources     []input
	source      input // of the delta
	frames      *FrameTable
	found       *blocks.Search
	digests     []Digest
	table, full []Entry
	unfit       map[int]bool // chunks that the source does not yield
	enc         []byte
}

// choose opens the sources and picks the recipe for them: the delta made for
// one of these very images, or for its build; then the blocks recipe; then the
// only delta for an image of that size. A wrong guess costs bytes and no more,
// since every chunk is compared.
func (w *applier) choose(ctx context.Context, paths []string) error {
	w.Recipe, w.Why = len(w.img.Recipes)-1, "no source is given"
	best := none
	for _, path := range paths {
		src, err := openInput(path)
		if err != nil {
			return err
		}
		w.sources = append(w.sources, src)
		id, err := Identify(ctx, src, src.size)
		if err != nil {
			return err
		}
		recipe, fit, why := w.img.recipeFor(id)
		if best == none || fit > best {
			best, w.source, w.Recipe, w.Why = fit, src, recipe, why
		}
	}
	if w.img.Blocks() != nil && best > none && best < sameBuild {
		w.Recipe, w.Why = len(w.img.Recipes)-2, "no delta is made for a source"
	}
	if w.img.Recipes[w.Recipe].Kind != KindDelta {
		w.source = input{}
	}
	return nil
}

// A fit tells how well a delta suits a source.
type fit int

const (
	none fit = iota // no source yet
	unfit
	sameSize
	sameBuild
	exact
)

func (img *Image) recipeFor(id Source) (recipe int, how fit, why string) {
	build, size := []int(nil), []int(nil)
	for i := range img.Recipes {
		s := img.Recipes[i].Source
		if s == nil {
			continue
		}
		if s.Digest == id.Digest {
			return i, exact, "made for exactly this source"
		}
		if s.BuildID != "" && s.BuildID == id.BuildID {
			build = append(build, i)
		}
		if s.Size == id.Size {
			size = append(size, i)
		}
	}
	switch {
	case len(build) == 1:
		return build[0], sameBuild, fmt.Sprintf("made for build %s, which the source says it is, though its digest differs", id.BuildID)
	case len(size) == 1:
		return size[0], sameSize, "the only delta for a source of this size, though the digest differs"
	}
	return len(img.Recipes) - 1, unfit, "no delta is made for this source"
}

func (w *applier) load(ctx context.Context) (err error) {
	if w.digests, err = w.File.Chunks(w.img); err != nil {
		return err
	}
	r := &w.img.Recipes[w.Recipe]
	w.window = NewWindow(w.img, make([]byte, WindowSize(w.img, r, w.img.Full())))
	w.Applied.Chunks = len(w.digests)
	if r.Kind == KindBlocks {
		return w.search(ctx, r)
	}
	w.Fetched = r.Download(w.img)
	w.table, err = w.Table(w.img, r)
	return err
}

func (w *applier) write(ctx context.Context) error {
	left := make([]int, len(w.digests))
	for i := range left {
		left[i] = i
	}
	if w.source.File != nil {
		var err error
		if left, err = w.writeAlone(ctx, left); err != nil {
			return err
		}
	}
	for _, i := range left {
		if err := ctx.Err(); err != nil {
			return err
		}
		chunk, err := w.chunk(i)
		if err != nil {
			return fmt.Errorf("chunk %d: %w", i, err)
		}
		w.window.Keep(i)
		if err := w.put(i, chunk); err != nil {
			return err
		}
		w.advance(len(chunk))
	}
	return nil
}

func (w *applier) put(i int, chunk []byte) error {
	_, err := w.out.WriteAt(chunk, int64(i)*w.img.ChunkSize)
	if err == nil {
		w.echo.add(i)
	}
	return err
}

func (w *applier) advance(n int) {
	if w.done += int64(n); w.progress != nil {
		w.progress(w.done, w.img.Size)
	}
}

func (w *applier) chunk(i int) ([]byte, error) {
	if w.frames != nil {
		return w.assemble(i)
	}
	if !w.unfit[i] {
		return w.decode(i, &w.img.Recipes[w.Recipe], w.table[i])
	}
	full, err := w.img.Full(), error(nil)
	if w.full == nil {
		if w.full, err = w.Table(w.img, full); err != nil {
			return nil, err
		}
		w.Fetched += full.Table.Length
		w.FallbackBytes += full.Table.Length
	}
	w.Fallback++
	w.Fetched += int64(w.full[i].Length)
	w.FallbackBytes += int64(w.full[i].Length)
	return w.decode(i, full, w.full[i])
}

func (w *applier) decode(i int, r *Recipe, e Entry) (dst []byte, err error) {
	if w.enc, err = w.read(w.enc, e.Offset, int64(e.Length)); err != nil {
		return nil, err
	}
	var from Basis
	if e.Kind == Prefixed {
		if from.Prefix, err = w.window.Prefix(r, i, w.before); err != nil {
			return nil, err
		}
	}
	dst = w.window.Place(i)
	return dst, w.decoder.Decode(dst, w.digests[i], e, w.enc, from)
}

// before reads a chunk that was made before, and is no longer in the window.
func (w *applier) before(j int, chunk []byte) error {
	if _, err := w.out.ReadAt(chunk, int64(j)*w.img.ChunkSize); err != nil {
		return err
	}
	if got := Sum(chunk); got != w.digests[j] {
		return fmt.Errorf("read chunk %d back: %w: digest is %v, the chunk table says %v", j, ErrContent, got, w.digests[j])
	}
	return nil
}

func (m *Manifest) classes() string {
	var s string
	for i := range m.Images {
		if i > 0 {
			s += ", "
		}
		s += m.Images[i].Class
	}
	return s
}
