// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"time"

	"github.com/updaterd/updaterd/bundle/delta"
	"github.com/updaterd/updaterd/bundle/seal"
	"github.com/updaterd/updaterd/sign"
)

// A Spec says what goes into a bundle. The same Spec and the same files give
// the same bytes, the signatures apart.
type Spec struct {
	Compatible []string
	Version    string
	Channel    string
	Sequence   uint64
	Floor      uint64
	// Created is the signed time; parts of a second are dropped.
	Created     time.Time
	Annotations map[string]string
	Images      []ImageSpec
	// Origin is for the provenance.
	Origin Origin
	// SBOM is the path of a bill of materials, in a format that package sbom knows.
	SBOM string
	// ChunkSize is DefaultChunkSize if 0.
	ChunkSize int64
	// Prefix is how many bytes before a chunk help to compress it: DefaultPrefix
	// if 0, none if negative.
	Prefix int64
	// Blocks adds a blocks recipe to each image, for devices whose image no delta
	// is made from.
	Blocks bool
	// Compressor makes the zstd frames: what is built in if "", or CompressorZstd.
	Compressor string
	Signers    []sign.Signer
	// Unsigned makes a bundle without a signature, which no device accepts, in
	// place of Signers: see [Draft].
	Unsigned bool
	// Recipients are whom the images are encrypted for. If there are none, anybody
	// can read them. With them the same Spec gives other bytes each time.
	Recipients []*seal.Recipient
	// Identities open sources that are bundles and encrypted.
	Identities []*seal.Identity
	// Policy is for sources that are bundles. Nil believes nobody.
	Policy *sign.Policy
	// Workers is the number of chunks encoded at once; 0 means all cores.
	Workers int
	// Progress, if set, is told the bytes done so far and in all. Calls do not overlap.
	Progress func(done, total int64)
	// Note, if set, gets sentences about what a person may not expect.
	Note func(string)
}

// An ImageSpec is one image and the older images that deltas are made from.
type ImageSpec struct {
	Class string
	Path  string
	// BuildID overrides what is found in the image.
	BuildID string
	Deltas  []SourceSpec
}

// A SourceSpec is an image that devices may have.
type SourceSpec struct {
	// Path is that of the image, or of a bundle with an image of the class.
	Path string
	// BuildID overrides what is found in the image.
	BuildID string
}

// Build writes a bundle to out, which appears only when it is complete.
// Every chunk is decoded again and compared before it counts as built. A delta
// or a blocks recipe that would not be smaller than the full recipe is left out,
// with a note.
func Build(ctx context.Context, out string, s Spec) error {
	if err := build(ctx, out, s); err != nil {
		return fmt.Errorf("build %s: %w", out, err)
	}
	return nil
}

func build(ctx context.Context, out string, s Spec) error {
	if (len(s.Signers) == 0) != s.Unsigned {
		return errors.New("there is no key to sign with, or there is one for a bundle that is to be unsigned")
	}
	b := newBuilder(s)
	defer b.close()
	if err := b.open(out); err != nil {
		return err
	}
	m := &Manifest{
		Format:      Format,
		Compatible:  s.Compatible,
		Version:     s.Version,
		Channel:     s.Channel,
		Sequence:    s.Sequence,
		Floor:       s.Floor,
		Created:     s.Created.UTC().Truncate(time.Second),
		Annotations: s.Annotations,
	}
	if err := b.compressor(ctx, m); err != nil {
		return err
	}
	if err := b.encrypt(m); err != nil {
		return err
	}
	if err := b.precheck(m); err != nil {
		return err
	}
	var images []*builtImage
	for i := range b.inputs {
		img, err := b.image(ctx, &b.inputs[i])
		if err != nil {
			return fmt.Errorf("image %q: %w", b.inputs[i].Class, err)
		}
		images = append(images, img)
	}
	return b.assemble(ctx, out, m, images)
}

// A builder holds the open files of one Build.
type builder struct {
	Spec
	newCompressor func() (compressor, error)
	key           *seal.Key // nil if nothing is encrypted
	inputs        []imageInput
	spool         *spool
	documents     []builtDocument
	done, total   int64
}

func newBuilder(s Spec) *builder { return &builder{Spec: s, newCompressor: newBuiltIn} }

type imageInput struct {
	ImageSpec
	input
	sources []input
	streams *delta.Streams // of the image, once a delta needs them
}

// An input is a file that is read only, or an image that is made of a bundle.
type input struct {
	*os.File
	size int64
	from *bundledImage // nil for a file
}

// Name is the path that the caller gave.
func (in input) Name() string {
	if in.from != nil {
		return in.from.file.Name()
	}
	return in.File.Name()
}

func openInput(path string) (input, error) {
	f, err := os.Open(path)
	if err != nil {
		return input{}, err
	}
	// Not Stat: a block device has its size only here.
	size, err := f.Seek(0, io.SeekEnd)
	if info, e := f.Stat(); e == nil && info.IsDir() {
		err = errors.New("it is a directory")
	} else if err == nil && size == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		f.Close()
		return input{}, fmt.Errorf("open %s: %w", path, err)
	}
	return input{File: f, size: size}, nil
}

func (b *builder) open(out string) error {
	if b.ChunkSize == 0 {
		b.ChunkSize = DefaultChunkSize
	}
	if b.Prefix == 0 {
		b.Prefix = DefaultPrefix
	}
	b.Prefix = max(0, b.Prefix)
	if err := b.Origin.validate(); err != nil {
		return err
	}
	if b.Workers <= 0 {
		b.Workers = runtime.GOMAXPROCS(0)
	}
	for _, spec := range b.Images {
		b.inputs = append(b.inputs, imageInput{ImageSpec: spec})
		in := &b.inputs[len(b.inputs)-1]
		var err error
		if in.input, err = b.openInput(spec.Path, out); err != nil {
			return err
		}
		b.total += in.size
		if b.Blocks {
			b.total += in.size
		}
		for _, d := range spec.Deltas {
			src, err := b.openSource(spec.Class, d.Path, out)
			if err != nil {
				return err
			}
			in.sources = append(in.sources, src)
			b.total += in.size + src.size
			if b.Blocks {
				b.total += src.size // to look for the frames there
			}
		}
	}
	f, err := createNameless(out)
	if err != nil {
		return err
	}
	b.spool = &spool{file: f}
	return b.openSBOM(out)
}

// createNameless makes a temporary file on the file system of out. It has no
// name, so it is gone however this process ends.
func createNameless(out string) (*os.File, error) {
	f, err := createReplacement(out)
	if err == nil {
		if err = os.Remove(f.Name()); err != nil {
			f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create temporary file: %w", err)
	}
	return f.File, nil
}

// compressor finds what compresses. The manifest tells if it is not built in,
// because then the same Spec need not give the same bytes on another machine.
func (b *builder) compressor(ctx context.Context, m *Manifest) error {
	switch b.Compressor {
	case "":
		return nil
	case CompressorZstd:
	default:
		return fmt.Errorf("unknown compressor %.32q: want none or %q", b.Compressor, CompressorZstd)
	}
	if _, taken := m.Annotations[annotationCompressor]; taken {
		return fmt.Errorf("annotation %q is what tells the compressor; choose another key", annotationCompressor)
	}
	z, err := findZstd(ctx)
	if err != nil {
		return err
	}
	b.newCompressor = z.worker
	m.Annotations = maps.Clone(m.Annotations)
	if m.Annotations == nil {
		m.Annotations = make(map[string]string)
	}
	m.Annotations[annotationCompressor] = z.annotation()
	return nil
}

func (b *builder) openInput(path, out string) (input, error) {
	in, err := openInput(path)
	if err != nil {
		return input{}, err
	}
	was, err1 := in.Stat()
	will, err2 := os.Stat(out)
	if err1 == nil && err2 == nil && os.SameFile(was, will) {
		in.Close()
		return input{}, fmt.Errorf("%s is an input too; choose another name for the bundle", path)
	}
	return in, nil
}

func (b *builder) close() {
	for _, in := range b.inputs {
		if in.File != nil {
			in.Close()
		}
		for _, src := range in.sources {
			src.close()
		}
	}
	if b.spool != nil {
		b.spool.file.Close()
	}
}

// precheck finds out before the long work whether the manifest will be valid,
// with tables and data of the right shape and no content.
func (b *builder) precheck(m *Manifest) error {
	trial := *m
	for i := range b.inputs {
		in := &b.inputs[i]
		img := Image{Class: in.Class, Size: in.size, BuildID: in.BuildID, ChunkSize: b.ChunkSize}
		var n int64
		if b.ChunkSize >= MinChunkSize {
			n = int64(img.ChunkCount())
		}
		img.Chunks.Length = n*DigestSize + m.overhead()
		for k, src := range in.sources {
			source := &Source{Digest: Digest{byte(k)}, Size: src.size, BuildID: in.Deltas[k].BuildID}
			img.Recipes = append(img.Recipes, Recipe{Kind: KindDelta, Source: source})
		}
		img.Recipes = append(img.Recipes, Recipe{Kind: KindFull, Prefix: b.Prefix})
		for k := range img.Recipes {
			img.Recipes[k].Table.Length = n*EntrySize + m.overhead()
		}
		trial.Images = append(trial.Images, img)
	}
	trial.place()
	return trial.validate()
}

func (b *builder) progress(n int64) {
	b.done += n
	if b.Progress != nil {
		b.Progress(b.done, b.total)
	}
}

func (b *builder) note(format string, args ...any) {
	if b.Note != nil {
		b.Note(fmt.Sprintf(format, args...))
	}
}
