// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// A bundledImage is the image of a class in a verified bundle.
type bundledImage struct {
	*File
	img *Image
}

// openSource opens an older image, or a bundle that has one of the class. Whom
// to believe is decided before anything in the bundle is looked at.
func (b *builder) openSource(class, path, out string) (input, error) {
	in, err := b.openInput(path, out)
	if err != nil {
		return input{}, err
	}
	var start [len(magic)]byte
	if _, err := io.ReadFull(io.NewSectionReader(in, 0, in.size), start[:]); err != nil || start != magic {
		return in, nil // an image may be shorter than that
	}
	src, err := b.openBundle(in.File, class, out)
	if err != nil {
		in.Close()
		return input{}, fmt.Errorf("open %s: %w", path, err)
	}
	return src, nil
}

func (b *builder) openBundle(f *os.File, class, out string) (input, error) {
	if b.Policy == nil {
		return input{}, errors.New("it is a bundle, and there is no keyring to verify it with; give --keyring")
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return input{}, err
	}
	file, err := open(f, b.Policy)
	if err != nil {
		return input{}, err
	}
	if err := file.Manifest.Unlock(b.Identities...); err != nil {
		return input{}, err
	}
	img := file.Manifest.Image(class)
	if img == nil {
		return input{}, fmt.Errorf("there is no image of class %q in it; it has %s", class, file.Manifest.classes())
	}
	tmp, err := createNameless(out)
	if err != nil {
		return input{}, err
	}
	return input{File: tmp, size: img.Size, from: &bundledImage{file, img}}, nil
}

// unpack makes the image with the full recipe of its bundle.
func (b *builder) unpack(ctx context.Context, src input) (Source, error) {
	img := src.from.img
	var last int64
	if _, err := src.from.fill(ctx, img, nil, src.File, func(done, _ int64) {
		b.progress(done - last)
		last = done
	}); err != nil {
		return Source{}, err
	}
	return Source{Digest: img.Digest, Size: img.Size, BuildID: img.BuildID}, nil
}

func (in input) close() {
	in.File.Close()
	if in.from != nil {
		in.from.Close()
	}
}

// sparse is a file that is all zeros, of which blocks of zeros stay holes.
type sparse struct{ *os.File }

const sparseBlock = 4 << 10

func (s sparse) WriteAt(b []byte, off int64) (int, error) {
	for at := 0; at < len(b); {
		end := at
		for end < len(b) && !isZero(b[end:min(end+sparseBlock, len(b))]) {
			end = min(end+sparseBlock, len(b))
		}
		if end > at {
			if n, err := s.File.WriteAt(b[at:end], off+int64(at)); err != nil {
				return at + n, err
			}
		}
		at = min(end+sparseBlock, len(b)) // the block at end is zero
	}
	return len(b), nil
}
