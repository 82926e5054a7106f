// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/updaterd/updaterd/bundle/seal"
)

// encrypt makes the content key, if there is anybody to encrypt for.
func (b *builder) encrypt(m *Manifest) error {
	if len(b.Recipients) == 0 {
		return nil
	}
	b.key = seal.NewKey()
	m.Requires = []string{RequiresEncryption}
	m.Encryption = &Encryption{Scheme: seal.Scheme}
	for _, r := range b.Recipients {
		wrapped, err := seal.Wrap(b.key, r)
		if err != nil {
			return err
		}
		m.Encryption.Recipients = append(m.Encryption.Recipients, Wrapped{ID: r.ID(), Key: wrapped})
	}
	if b.SBOM != "" || b.Origin.Builder != "" {
		b.note("documents are not encrypted: whoever has the bundle can read its sbom and its provenance")
	}
	return nil
}

// conceal encrypts the tables and the data of all images. What a piece is sealed with
// is its place in the payload, which is known only now that every length is.
func (b *builder) conceal(m *Manifest, images []*builtImage) error {
	if b.key == nil {
		return nil
	}
	for i, img := range images {
		to := &m.Images[i]
		to.Chunks.Length += seal.Overhead
		for k, r := range img.recipes {
			pieces, err := r.pieces(img, k)
			if err != nil {
				return err
			}
			r.sealed = pieces
			to.Recipes[k].Table.Length += seal.Overhead
			to.Recipes[k].Data.Length += int64(len(pieces)) * seal.Overhead
		}
	}
	m.place()
	for i, img := range images {
		to := &m.Images[i]
		to.Chunks.Digest, img.chunks = b.sealTable(img.chunks, to.Chunks.Offset)
		for k, r := range img.recipes {
			at := &to.Recipes[k]
			if err := b.sealData(r, at.Data.Offset); err != nil {
				return fmt.Errorf("image %q: recipe %d: %w", img.Class, k, err)
			}
			at.Table.Digest, r.table = b.sealTable(r.table, at.Table.Offset)
		}
	}
	return nil
}

func (b *builder) sealTable(table []byte, at int64) (Digest, []byte) {
	sealed := seal.Seal(b.key, nil, table, at)
	return Sum(sealed), sealed
}

// A piece is an encoded chunk or frame in the spool.
type piece struct {
	start, length int64
	// size and digest are the places in the recipe's table for those of its bytes.
	size, digest []byte
}

// pieces are those of a recipe that have any bytes, in the order of its data.
func (r *builtRecipe) pieces(img *builtImage, k int) ([]piece, error) {
	var list []piece
	add := func(start int64, length int, entry []byte, digestSize int) {
		if length > 0 {
			list = append(list, piece{start, int64(length), entry[:3], entry[len(entry)-digestSize:]})
		}
	}
	recipe := img.Recipes[k]
	if recipe.Kind != KindBlocks {
		for i := range Order(len(r.entries)) {
			add(r.entries[i].Offset, r.entries[i].Length, r.table[i*EntrySize:][:EntrySize], DigestSize)
		}
		return list, nil
	}
	recipe.Data.Offset = r.start
	digests, err := ParseChunks(&img.Image, img.chunks)
	if err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	frames, err := ParseFrames(&img.Image, &recipe, digests, r.table)
	if err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	for i := range Order(len(digests)) {
		for n, f := range frames.Frames(i) {
			add(f.Offset, f.Length, frames.entry(i, n), frameDigestSize)
		}
	}
	return list, nil
}

// sealData writes the pieces of a recipe to the spool once more, sealed, and their
// new lengths and digests into its table. The data begin at an offset of the payload.
func (b *builder) sealData(r *builtRecipe, at int64) error {
	start := b.spool.size
	var plain, sealed, proof []byte
	for _, p := range r.sealed {
		plain = append(plain[:0], make([]byte, p.length)...)
		if _, err := b.spool.file.ReadAt(plain, p.start); err != nil {
			return fmt.Errorf("read temporary file: %w", err)
		}
		sealed = seal.Seal(b.key, sealed[:0], plain, at)
		var err error
		if proof, err = b.key.Open(proof[:0], sealed, at); err != nil || !bytes.Equal(proof, plain) {
			return errors.New("internal error: what was sealed does not open")
		}
		sum, size := Sum(sealed), len(sealed)
		copy(p.digest, sum[:])
		copy(p.size, []byte{byte(size), byte(size >> 8), byte(size >> 16)})
		if err := b.spool.write(sealed); err != nil {
			return err
		}
		at += int64(len(sealed))
	}
	r.start, r.length, r.sealed = start, b.spool.size-start, nil
	return nil
}
