// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"fmt"
	"io"

	"github.com/updaterd/updaterd/sign"
)

// assemble signs the manifest of the images and writes the file.
func (b *builder) assemble(ctx context.Context, out string, m *Manifest, images []*builtImage) error {
	for _, img := range images {
		m.Images = append(m.Images, img.Image)
	}
	if err := b.addProvenance(m); err != nil {
		return err
	}
	for _, d := range b.documents {
		m.Documents = append(m.Documents, d.Document)
	}
	m.place()
	if err := b.conceal(m, images); err != nil {
		return err
	}
	payload, err := m.Marshal()
	if err != nil {
		return err
	}
	envelope, err := b.seal(payload)
	if err != nil {
		return err
	}
	head, err := appendHead(nil, envelope)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := createReplacement(out)
	if err != nil {
		return err
	}
	defer f.discard()
	if err := b.writeFile(f, head, images); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return f.commit()
}

func (b *builder) seal(manifest []byte) ([]byte, error) {
	if b.Unsigned {
		return sign.Unsigned(PayloadType, manifest)
	}
	return sign.Seal(PayloadType, manifest, b.Signers...)
}

// writeFile writes the parts in the order of Manifest.extents.
func (b *builder) writeFile(f io.Writer, head []byte, images []*builtImage) error {
	parts := [][]byte{head}
	for _, img := range images {
		parts = append(parts, img.chunks)
		for _, r := range img.recipes {
			parts = append(parts, r.table)
		}
	}
	for _, p := range parts {
		if _, err := f.Write(p); err != nil {
			return err
		}
	}
	for _, kind := range kinds {
		for _, img := range images {
			for k, r := range img.recipes {
				if img.Recipes[k].Kind != kind {
					continue
				}
				if err := b.spool.copyTo(f, r.start, r.length); err != nil {
					return fmt.Errorf("copy data of image %q: %w", img.Class, err)
				}
			}
		}
	}
	for _, d := range b.documents {
		if err := b.spool.copyTo(f, d.start, d.Length); err != nil {
			return fmt.Errorf("copy document %q: %w", d.Name, err)
		}
	}
	return nil
}
