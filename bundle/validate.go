// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/updaterd/updaterd/bundle/blocks"
)

// Limits of a manifest: docs/bundle-format.md#limits. They bound what a device
// holds in memory, so raising one is a change of format.
const (
	MaxImages     = 32
	MaxRecipes    = 64 // per image
	MaxCompatible = 64
	// MaxChunks bounds the tables of one image: 64 Ki chunks are 4.25 MiB of tables.
	MaxChunks        = 1 << 16
	MinChunkSize     = 4 << 10
	MaxChunkSize     = 4 << 20
	MaxPrefix        = 4 << 20
	DefaultChunkSize = 1 << 20
	DefaultPrefix    = 2 << 20
	// MaxFrames bounds the table of a blocks recipe: 256 Ki frames are 7 MiB.
	MaxFrames = 1 << 18
	MinFrame  = blocks.Size
	MaxFrame  = blocks.MaxFrame

	maxClass           = 32
	maxLabel           = 128
	maxAnnotations     = 64
	maxAnnotationValue = 4096

	// MaxDocuments and MaxDocument bound what nobody holds in memory as a whole.
	MaxDocuments = 16
	MaxDocument  = 1 << 30
)

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	digits = "0123456789"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	alnum  = lower + upper + digits
)

// validate checks every rule but the canonical form.
func (m *Manifest) validate() error {
	if m.Format != Format {
		return fmt.Errorf("format %d, this program reads %d; update it first", m.Format, Format)
	}
	if err := m.validateEncryption(); err != nil {
		return err
	}
	if err := CheckRelease(m.Compatible, m.Version); err != nil {
		return err
	}
	if m.Channel != "" {
		if err := CheckChannel(m.Channel); err != nil {
			return err
		}
	}
	if m.Floor > m.Sequence {
		return fmt.Errorf("floor %d is above the release's own sequence %d", m.Floor, m.Sequence)
	}
	if err := checkTime("created", m.Created); err != nil {
		return err
	}
	if err := checkAnnotations(m.Annotations); err != nil {
		return err
	}
	if len(m.Images) == 0 || len(m.Images) > MaxImages {
		return fmt.Errorf("%d images, want 1 to %d", len(m.Images), MaxImages)
	}
	classes := make(map[string]bool)
	for i := range m.Images {
		img := &m.Images[i]
		if err := img.validate(m.overhead()); err != nil {
			return err
		}
		if classes[img.Class] {
			return fmt.Errorf("two images of class %q", img.Class)
		}
		classes[img.Class] = true
	}
	if err := checkDocuments(m.Documents); err != nil {
		return err
	}
	return m.checkLayout()
}

func checkDocuments(documents []Document) error {
	if len(documents) > MaxDocuments {
		return fmt.Errorf("%d documents, at most %d", len(documents), MaxDocuments)
	}
	names := make(map[string]bool)
	for _, d := range documents {
		if err := checkWord("document", d.Name, maxClass, lower+digits, "-"); err != nil {
			return err
		}
		if err := checkWord("media type", d.Type, maxLabel, lower+digits, "/.+-"); err != nil {
			return fmt.Errorf("document %q: %w", d.Name, err)
		}
		if d.Length < 1 || d.Length > MaxDocument {
			return fmt.Errorf("document %q: %d bytes, want 1 to %d", d.Name, d.Length, MaxDocument)
		}
		if names[d.Name] {
			return fmt.Errorf("two documents %q", d.Name)
		}
		names[d.Name] = true
	}
	return nil
}

// validate checks an image, of whose encoded pieces each is longer by overhead.
func (img *Image) validate(overhead int64) error {
	if err := checkWord("class", img.Class, maxClass, lower+digits, "-"); err != nil {
		return err
	}
	if c := img.ChunkSize; c < MinChunkSize || c > MaxChunkSize || c&(c-1) != 0 {
		return fmt.Errorf("image %q: chunk size %d, want a power of two from %d to %d", img.Class, c, MinChunkSize, MaxChunkSize)
	}
	if img.Size < 1 || img.Size > MaxChunks*img.ChunkSize {
		return fmt.Errorf("image %q: %d bytes, want 1 to %d with this chunk size", img.Class, img.Size, MaxChunks*img.ChunkSize)
	}
	if img.BuildID != "" {
		if err := checkLabel("build id", img.BuildID); err != nil {
			return err
		}
	}
	n := int64(img.ChunkCount())
	if want := n*DigestSize + overhead; img.Chunks.Length != want {
		return fmt.Errorf("image %q: chunk table of %d bytes, want %d for %d chunks", img.Class, img.Chunks.Length, want, n)
	}
	if len(img.Recipes) == 0 || len(img.Recipes) > MaxRecipes {
		return fmt.Errorf("image %q: %d recipes, want 1 to %d", img.Class, len(img.Recipes), MaxRecipes)
	}
	sources := make(map[Digest]bool)
	for i := range img.Recipes {
		r := &img.Recipes[i]
		if err := r.validate(img, i, overhead); err != nil {
			return fmt.Errorf("image %q: recipe %d: %w", img.Class, i, err)
		}
		if r.Source == nil {
			continue
		}
		if sources[r.Source.Digest] {
			return fmt.Errorf("image %q: recipe %d: two deltas for the same source", img.Class, i)
		}
		sources[r.Source.Digest] = true
	}
	return nil
}

// validate checks recipe i of an image.
func (r *Recipe) validate(img *Image, i int, overhead int64) error {
	left := len(img.Recipes) - i
	switch {
	case !slices.Contains(kinds, r.Kind):
		return fmt.Errorf("unknown kind %.32q", r.Kind)
	case (left == 1) != (r.Kind == KindFull), r.Kind == KindBlocks && left != 2:
		return fmt.Errorf("kind %q: deltas come first, then at most one blocks recipe, and exactly one full recipe last", r.Kind)
	case (r.Kind == KindDelta) != (r.Source != nil):
		return fmt.Errorf("kind %q: a delta names its source, other recipes have none", r.Kind)
	case (r.Kind == KindBlocks) != (r.Frame != 0):
		return fmt.Errorf("kind %q: a blocks recipe says how long a frame is, other recipes have none", r.Kind)
	}
	if s := r.Source; s != nil {
		if s.Size < 1 || s.Size > MaxChunks*MaxChunkSize {
			return fmt.Errorf("source of %d bytes, want 1 to %d", s.Size, int64(MaxChunks*MaxChunkSize))
		}
		if s.BuildID != "" {
			if err := checkLabel("source build id", s.BuildID); err != nil {
				return err
			}
		}
	}
	if r.Prefix < 0 || r.Prefix > MaxPrefix {
		return fmt.Errorf("prefix of %d bytes, want at most %d", r.Prefix, MaxPrefix)
	}
	if err := r.validateTable(img, r.Table.Length-overhead); err != nil {
		return err
	}
	// An encoded chunk is never longer than the chunk, so neither is the data.
	if r.Data.Length < 0 || r.Data.Length > img.Size+r.units(img)*overhead {
		return fmt.Errorf("data of %d bytes for an image of %d", r.Data.Length, img.Size)
	}
	return nil
}

// units is how many pieces the data can have at most.
func (r *Recipe) units(img *Image) int64 {
	if r.Kind == KindBlocks {
		return (img.Size-1)/r.Frame + 1
	}
	return int64(img.ChunkCount())
}

// validateTable checks a table that holds n bytes.
func (r *Recipe) validateTable(img *Image, n int64) error {
	if r.Kind != KindBlocks {
		if want := int64(img.ChunkCount()) * EntrySize; n != want {
			return fmt.Errorf("table of %d bytes, want %d", n, want)
		}
		return nil
	}
	if f := r.Frame; f < MinFrame || f > min(MaxFrame, img.ChunkSize) || f&(f-1) != 0 {
		return fmt.Errorf("frame of %d bytes, want a power of two from %d to %d, and no more than a chunk", f, MinFrame, MaxFrame)
	}
	frames := r.units(img)
	if frames > MaxFrames {
		return fmt.Errorf("%d frames, at most %d; make them longer", frames, MaxFrames)
	}
	// Chunks that are all zeros have no entries.
	if n < 0 || n > frames*FrameEntrySize || n%FrameEntrySize != 0 {
		return fmt.Errorf("table of %d bytes, want a multiple of %d and at most %d", n, FrameEntrySize, frames*FrameEntrySize)
	}
	return nil
}

// checkWord allows the characters of first at the start, and more after it.
func checkWord(what, s string, limit int, first, more string) error {
	if s == "" || len(s) > limit {
		return fmt.Errorf("%s %.80q: want 1 to %d characters", what, s, limit)
	}
	if strings.Contains(more, s[:1]) {
		return fmt.Errorf("%s %.80q: it must not start with %q", what, s, s[:1])
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune(first+more, r) }); i >= 0 {
		letters := "letters"
		if !strings.Contains(first, upper) {
			letters = "lower-case letters"
		}
		return fmt.Errorf("%s %.80q: only %s, digits and %s are allowed", what, s, letters, more)
	}
	return nil
}

// checkLabel is for what people call things: versions, kinds of device, builds.
// No space, slash, quote or control character, so that a label is safe in a
// path, a command line and a log.
func checkLabel(what, s string) error {
	return checkWord(what, s, maxLabel, alnum, "._-+~:,@=")
}

func checkList(what string, list []string) error {
	if len(list) == 0 || len(list) > MaxCompatible {
		return fmt.Errorf("%d entries in %s, want 1 to %d", len(list), what, MaxCompatible)
	}
	for i, s := range list {
		if err := checkLabel(what, s); err != nil {
			return err
		}
		if slices.Contains(list[:i], s) {
			return fmt.Errorf("%s lists %q twice", what, s)
		}
	}
	return nil
}

func checkAnnotations(a map[string]string) error {
	if len(a) > maxAnnotations {
		return fmt.Errorf("%d annotations, at most %d", len(a), maxAnnotations)
	}
	for k, v := range a {
		if err := checkWord("annotation", k, maxLabel, lower+digits, "._-"); err != nil {
			return err
		}
		if len(v) > maxAnnotationValue || !utf8.ValidString(v) || strings.ContainsFunc(v, notInText) {
			return fmt.Errorf("annotation %q: want at most %d bytes of UTF-8 without control characters", k, maxAnnotationValue)
		}
	}
	return nil
}

// notInText tells what no annotation holds: controls except tab and newline,
// and the two line separators that JSON writers do not agree on.
func notInText(r rune) bool {
	return r < 0x20 && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029
}
