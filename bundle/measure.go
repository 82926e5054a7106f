// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"fmt"
	"path/filepath"
)

// A Measurement asks what a bundle would hold for an image and one source.
type Measurement struct {
	Image, Source string // paths of images
	// ChunkSize is DefaultChunkSize if 0.
	ChunkSize int64
	// Scratch is the directory for a temporary file as large as both recipes.
	Scratch string
	// Progress, if set, is told the bytes done so far and in all. Calls do not overlap.
	Progress func(done, total int64)
}

// A Measured is what Build would put into a bundle. The entries have no offsets.
type Measured struct {
	Image, Source Source
	ChunkSize     int64
	// Full and Delta have an entry for each chunk. What is not a patch in Delta
	// is the chunk as the full recipe has it.
	Full, Delta []Entry
}

// Measure encodes as Build does, and keeps only what it costs.
func Measure(ctx context.Context, m Measurement) (*Measured, error) {
	out, err := measure(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("measure the delta from %s to %s: %w", m.Source, m.Image, err)
	}
	return out, nil
}

func measure(ctx context.Context, m Measurement) (*Measured, error) {
	b := newBuilder(Spec{
		ChunkSize: m.ChunkSize, Progress: m.Progress,
		Images: []ImageSpec{{Class: "image", Path: m.Image, Deltas: []SourceSpec{{Path: m.Source}}}},
	})
	defer b.close()
	if err := b.open(filepath.Join(m.Scratch, "updater-bundle")); err != nil {
		return nil, err
	}
	in := &b.inputs[0]
	img := &builtImage{Image: Image{Class: in.Class, Size: in.size, ChunkSize: b.ChunkSize}}
	digests, full, err := b.full(ctx, in, img)
	if err != nil {
		return nil, err
	}
	source, err := b.identify(ctx, in, 0)
	if err != nil {
		return nil, err
	}
	d, err := b.delta(ctx, in, 0, digests, full)
	if err != nil {
		return nil, err
	}
	out := &Measured{Image: Source{img.Digest, img.Size, img.BuildID}, Source: source, ChunkSize: b.ChunkSize, Full: full.entries, Delta: d.entries}
	for i := range out.Full {
		out.Full[i].Offset, out.Delta[i].Offset = 0, 0
	}
	return out, nil
}
