// SPDX-License-Identifier: Apache-2.0

package imagediff

import (
	"github.com/updaterd/updaterd/bundle/fsmap"
)

// A Report is what Compare found. Its JSON is described in docs/diff.md.
type Report struct {
	Old Side `json:"old"`
	New Side `json:"new"`
	// Delta and Full are what a device downloads for the recipe, tables included.
	Delta     int64  `json:"delta"`
	Full      int64  `json:"full"`
	ChunkSize int64  `json:"chunk_size"`
	Chunks    Chunks `json:"chunks"`
	Blocks    Blocks `json:"blocks"`
	// Areas, Regions and Files are sorted by cost, the dearest first.
	Areas    []AreaCost `json:"areas"`
	Regions  []Region   `json:"regions"`
	Files    []FileCost `json:"files"`
	Findings []Finding  `json:"findings"`
}

// A Side is one of the two images.
type Side struct {
	Path    string `json:"path"`
	Size    int64  `json:"size"`
	Digest  string `json:"digest"`
	BuildID string `json:"build_id,omitempty"`
	// FileSystem is empty if none is known.
	FileSystem  string `json:"file_system,omitempty"`
	BlockSize   int64  `json:"block_size,omitempty"`
	Compression string `json:"compression,omitempty"`
	UUID        string `json:"uuid,omitempty"`
	// Unread says why files are not, or not all, looked up.
	Unread string `json:"unread,omitempty"`
}

// Chunks counts the chunks of the new image.
type Chunks struct {
	All     int `json:"all"`
	Zero    int `json:"zero"`
	Same    int `json:"same"` // as in the old image, at the same place
	Patched int `json:"patched"`
	// Full ones are taken from the full recipe, because a patch is no shorter.
	Full int `json:"full"`
}

// Blocks counts the bytes of the new image by the fate of the block they are in.
type Blocks struct {
	Zero    int64 `json:"zero"`
	Same    int64 `json:"same"`
	Moved   int64 `json:"moved"` // the old image has this block elsewhere
	Changed int64 `json:"changed"`
}

func (b *Blocks) add(o Blocks) {
	b.Zero += o.Zero
	b.Same += o.Same
	b.Moved += o.Moved
	b.Changed += o.Changed
}

// An AreaCost is what one use of the image costs.
type AreaCost struct {
	Area   string `json:"area"`
	Cost   int64  `json:"cost"` // an estimate
	Blocks Blocks `json:"blocks"`
}

// A Region is one chunk.
type Region struct {
	Offset   int64    `json:"offset"`
	Cost     int64    `json:"cost"` // exact
	Kind     string   `json:"kind"`
	FullCost int64    `json:"full_cost"`
	Holds    []string `json:"holds"` // what costs most in it, at most three
}

// The kinds of change to a file.
const (
	FileNew       = "new"
	FileChanged   = "changed"
	FileRenamed   = "renamed"
	FileCopied    = "copied"
	FileMetadata  = "metadata only"
	FileMoved     = "blocks moved"
	FileUnchanged = "unchanged"
)

// A FileCost is what one file costs, and what is known of it.
type FileCost struct {
	Path   string `json:"path"`
	Cost   int64  `json:"cost"` // an estimate
	Size   int64  `json:"size"`
	Change string `json:"change"`
	// From is the file of the old image that has the same contents under another name.
	From string `json:"from,omitempty"`
	// Contents is a kind of contents that makes deltas large: gzip, xz, zstd, random, ...
	Contents string `json:"contents,omitempty"`
	Blocks   Blocks `json:"blocks"`

	directory bool
	old, new  *fsmap.File
}

// A Finding is a reason for cost, and what helps.
type Finding struct {
	// ID is stable, for programs.
	ID   string `json:"id"`
	What string `json:"what"`
	Cure string `json:"cure"`
	// Cost is what it is estimated to cost, 0 if that is not known.
	Cost int64 `json:"cost,omitempty"`
	// Paths are examples.
	Paths []string `json:"paths,omitempty"`
}
