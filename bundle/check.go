// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
)

// Checked is what [File.Check] found good in one recipe.
type Checked struct {
	Class string `json:"class"`
	// Recipe is its place in Image.Recipes.
	Recipe int    `json:"recipe"`
	Kind   string `json:"kind"`
	// Chunks are authentic, with all frames there are; Decoded of them were decoded and compared, the
	// others need the source of a delta for that.
	Chunks  int   `json:"chunks"`
	Decoded int   `json:"decoded"`
	Bytes   int64 `json:"bytes"`
}

// Check authenticates every byte of the payload, decodes every chunk that needs
// no source, and compares each image that the full recipe yields with its digest,
// and the provenance with what it is about.
func (f *File) Check(ctx context.Context, progress func(done, total int64)) ([]Checked, error) {
	d, err := NewDecoder(f.Manifest)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	c := &checker{File: f, decoder: d, progress: progress}
	for i := range f.Manifest.Images {
		c.total += f.Manifest.Images[i].Size * int64(len(f.Manifest.Images[i].Recipes))
	}
	var all []Checked
	for i := range f.Manifest.Images {
		img := &f.Manifest.Images[i]
		digests, err := f.Chunks(img)
		if err != nil {
			return nil, err
		}
		for k := range img.Recipes {
			one, err := c.recipe(ctx, img, k, digests)
			if err != nil {
				return nil, fmt.Errorf("check %s recipe %d of image %q: %w", img.Recipes[k].Kind, k, img.Class, err)
			}
			all = append(all, one)
		}
	}
	for i := range f.Manifest.Documents {
		if err := f.Manifest.Documents[i].copyTo(io.Discard, f.payload()); err != nil {
			return nil, err
		}
	}
	if _, err := f.Provenance(); err != nil {
		return nil, err
	}
	return all, nil
}

type checker struct {
	*File
	decoder     *Decoder
	progress    func(done, total int64)
	done, total int64
	enc         []byte
}

func (c *checker) recipe(ctx context.Context, img *Image, k int, digests []Digest) (Checked, error) {
	r := &img.Recipes[k]
	out := Checked{Class: img.Class, Recipe: k, Kind: r.Kind, Chunks: len(digests), Bytes: r.Data.Length}
	if r.Kind == KindBlocks {
		return c.frames(ctx, img, r, out, digests)
	}
	entries, err := c.Table(img, r)
	if err != nil {
		return out, err
	}
	hash := sha256.New()
	window := NewWindow(img, make([]byte, WindowSize(img, r)))
	for i, e := range entries {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if c.enc, err = c.read(c.enc, e.Offset, int64(e.Length)); err != nil {
			return out, err
		}
		n := img.ChunkLength(i)
		if c.done += int64(n); c.progress != nil {
			c.progress(c.done, c.total)
		}
		if e.Kind == Patch || e.Kind == Prefixed && r.Kind == KindDelta {
			// The prefix comes out of patches. Where a delta has a chunk of the
			// full recipe, that is where it is decoded.
			if Sum(c.enc) != e.Digest {
				return out, fmt.Errorf("chunk %d: %w", i, ErrEncoded)
			}
			continue
		}
		var from Basis
		if e.Kind == Prefixed {
			if from.Prefix, err = window.Prefix(r, i, notAtHand); err != nil {
				return out, err
			}
		}
		dst := window.Place(i)
		if err := c.decoder.Decode(dst, digests[i], e, c.enc, from); err != nil {
			return out, fmt.Errorf("chunk %d: %w", i, err)
		}
		window.Keep(i)
		out.Decoded++
		hash.Write(dst)
	}
	if got := Digest(hash.Sum(nil)); r.Kind == KindFull && got != img.Digest {
		return out, fmt.Errorf("%w: the whole image has digest %v, the manifest says %v", ErrContent, got, img.Digest)
	}
	return out, nil
}

// frames decodes every frame, and compares the chunks that they make.
func (c *checker) frames(ctx context.Context, img *Image, r *Recipe, out Checked, digests []Digest) (Checked, error) {
	table, err := c.read(nil, r.Table.Offset, r.Table.Length)
	if err != nil {
		return out, err
	}
	a := &applier{File: c.File, img: img, decoder: c.decoder, digests: digests}
	if a.frames, err = ParseFrames(img, r, digests, table); err != nil {
		return out, err
	}
	a.window = NewWindow(img, make([]byte, WindowSize(img, r)))
	for i := range digests {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if _, _, err := a.fill(i, false); err != nil {
			return out, fmt.Errorf("chunk %d: %w", i, err)
		}
		a.window.Keep(i)
		out.Decoded++
		if c.done += int64(img.ChunkLength(i)); c.progress != nil {
			c.progress(c.done, c.total)
		}
	}
	return out, nil
}
