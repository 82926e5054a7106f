// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"time"

	"github.com/updaterd/updaterd/bundle/canonical"
	"github.com/updaterd/updaterd/bundle/seal"
)

// PayloadType is the DSSE payload type of a manifest.
const PayloadType = "application/vnd.updaterd.manifest.v1+json"

// Format is the manifest format that this package reads and writes.
const Format = 1

// A Manifest is all that is signed. Field order is the order of the canonical
// JSON: docs/bundle-format.md#manifest.
type Manifest struct {
	Format int `json:"format"`
	// Requires lists the features a reader must know: RequiresEncryption is one.
	Requires []string `json:"requires,omitempty"`
	// Compatible lists the kinds of device this release is for.
	Compatible []string `json:"compatible"`
	// Version is a label for people. Only Sequence orders releases.
	Version string `json:"version"`
	// Channel is what a policy may ask for other keys by: "stable", "nightly".
	Channel  string `json:"channel,omitempty"`
	Sequence uint64 `json:"sequence"`
	// Floor is the lowest sequence a device may install once it has confirmed this release.
	Floor uint64 `json:"floor"`
	// Created is the signed time, in UTC and whole seconds.
	Created time.Time `json:"created"`
	// Encryption is nil if anybody may read the images.
	Encryption *Encryption `json:"encryption,omitempty"`
	Images     []Image     `json:"images"`
	// Documents are files about the release. A device accounts for their bytes
	// and fetches none of them.
	Documents []Document `json:"documents,omitempty"`
	// Annotations are signed, and a reader may ignore them.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// An Image is the content of one slot, as a list of chunks of equal length (the
// last one may be shorter).
type Image struct {
	// Class is the slot class, such as "rootfs".
	Class  string `json:"class"`
	Size   int64  `json:"size"`
	Digest Digest `json:"digest"`
	// BuildID is BUILD_ID of the image's os-release, if it is known.
	BuildID   string `json:"build_id,omitempty"`
	ChunkSize int64  `json:"chunk_size"`
	// Chunks pins the chunk table: the digest of every chunk.
	Chunks Table `json:"chunks"`
	// Recipes lists any number of deltas, then at most one blocks recipe, and
	// then exactly one full recipe.
	Recipes []Recipe `json:"recipes"`

	// key opens what is sealed; nil if nothing is. See Manifest.Unlock.
	key *seal.Key
}

// A Recipe is one way to make an image's chunks.
type Recipe struct {
	Kind string `json:"kind"`
	// Source is what a delta starts from; nil for other recipes.
	Source *Source `json:"source,omitempty"`
	// Frame is the length of the pieces of a blocks recipe; 0 for other recipes.
	Frame int64 `json:"frame,omitempty"`
	// Prefix is how many bytes before a chunk or a frame are its dictionary, if
	// its encoding is Prefixed.
	Prefix int64 `json:"prefix,omitempty"`
	// Table pins the recipe table: kind, length and digest of every encoded
	// chunk, or of every frame.
	Table Table  `json:"table"`
	Data  Extent `json:"data"`
}

// Kinds of recipe.
const (
	KindFull  = "full"
	KindDelta = "delta"
	// KindBlocks is for a device that has some other image: it makes what it can
	// from that, and fetches the rest in small frames.
	KindBlocks = "blocks"
)

// kinds in the order in which their data lie in the payload.
var kinds = []string{KindDelta, KindBlocks, KindFull}

// A Source is the image that a delta was made against.
type Source struct {
	Digest  Digest `json:"digest"`
	Size    int64  `json:"size"`
	BuildID string `json:"build_id,omitempty"`
}

// An Extent is a range of the payload, which begins where the envelope ends.
type Extent struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// A Table is an extent whose content is pinned.
type Table struct {
	Extent
	Digest Digest `json:"digest"`
}

// A Document is a file about the release that the bundle carries for people and tools.
type Document struct {
	Name string `json:"name"`
	// Type is its media type.
	Type string `json:"type"`
	Table
}

// The documents that [Build] makes. A bundle may have others.
const (
	// DocumentProvenance says where the images come from: package provenance.
	DocumentProvenance = "provenance"
	// DocumentSBOM is the bill of materials that the builder was given.
	DocumentSBOM = "sbom"
)

// Image returns the image of a class, or nil.
func (m *Manifest) Image(class string) *Image {
	for i := range m.Images {
		if m.Images[i].Class == class {
			return &m.Images[i]
		}
	}
	return nil
}

// Document returns the document of a name, or nil.
func (m *Manifest) Document(name string) *Document {
	for i := range m.Documents {
		if m.Documents[i].Name == name {
			return &m.Documents[i]
		}
	}
	return nil
}

// ChunkCount is the number of chunks.
func (img *Image) ChunkCount() int {
	return int((img.Size-1)/img.ChunkSize + 1)
}

// ChunkLength is the length of chunk i.
func (img *Image) ChunkLength(i int) int {
	return int(min(img.ChunkSize, img.Size-int64(i)*img.ChunkSize))
}

// Blocks is the blocks recipe, or nil.
func (img *Image) Blocks() *Recipe {
	if n := len(img.Recipes); n > 1 && img.Recipes[n-2].Kind == KindBlocks {
		return &img.Recipes[n-2]
	}
	return nil
}

// Full is the recipe that needs no source. Every valid image has it.
func (img *Image) Full() *Recipe { return &img.Recipes[len(img.Recipes)-1] }

// Download is the number of bytes a device fetches to make img by r, the
// envelope apart: both tables and the data. By a blocks recipe it is at most that.
func (r *Recipe) Download(img *Image) int64 {
	return img.Chunks.Length + r.Table.Length + r.Data.Length
}

// Marshal checks the manifest and returns its canonical JSON.
func (m *Manifest) Marshal() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("write manifest: %v", err)
	}
	b, err := canonical.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	return b, nil
}

// ParseManifest reads a manifest that obeys every rule of the format. It must
// only see bytes whose signature was verified; [Verify] does that.
//
// It is canonical JSON: package canonical.
func ParseManifest(b []byte) (*Manifest, error) {
	if len(b) > MaxEnvelope {
		return nil, fmt.Errorf("read manifest: %w: %d bytes, at most %d", ErrMalformed, len(b), MaxEnvelope)
	}
	m := new(Manifest)
	if err := canonical.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("read manifest: %w: %v", ErrMalformed, err)
	}
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("read manifest: %w: %v", ErrMalformed, err)
	}
	if m.Encryption != nil {
		m.setKey(new(seal.Key)) // locked
	}
	return m, nil
}
