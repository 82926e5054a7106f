// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/updaterd/updaterd/bundle/provenance"
	"github.com/updaterd/updaterd/bundle/sbom"
)

// An Origin is what a builder cannot find out by itself and states in the provenance.
type Origin struct {
	// Builder is the URI of who builds; there is no provenance without it.
	Builder string
	// BuilderVersion maps the parts of the builder to their versions.
	BuilderVersion map[string]string
	// Source is the URI of the source that the images were built from, and
	// Revision the git commit.
	Source, Revision string
}

func (o *Origin) validate() error {
	if (o.Source == "") != (o.Revision == "") {
		return errors.New("source and revision go together")
	}
	if o.Builder == "" {
		if o.Source != "" {
			return errors.New("a source, but no builder id")
		}
		return nil
	}
	if err := provenance.CheckURI("builder id", o.Builder); err != nil {
		return err
	}
	if o.Source == "" {
		return nil
	}
	if err := provenance.CheckURI("source", o.Source); err != nil {
		return err
	}
	return provenance.CheckRevision(o.Revision)
}

// openSBOM puts the bill of materials into the spool at once: it is small beside
// the images, and what cannot be read is found out before the long work.
func (b *builder) openSBOM(out string) error {
	if b.SBOM == "" {
		return nil
	}
	in, err := b.openInput(b.SBOM, out)
	if err != nil {
		return err
	}
	defer in.Close()
	if in.size > MaxDocument {
		return fmt.Errorf("%s: %d bytes, at most %d", b.SBOM, in.size, MaxDocument)
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return err
	}
	start, hash := b.spool.size, sha256.New()
	n, err := io.Copy(io.MultiWriter(b.spool, hash), io.LimitReader(in.File, in.size))
	if err != nil {
		return fmt.Errorf("read %s: %w", b.SBOM, err)
	}
	// Of the copy, so that it is about the bytes that the digest is of.
	mediaType, err := sbom.Detect(io.NewSectionReader(b.spool.file, start, n))
	if err != nil {
		return fmt.Errorf("%s: %w", b.SBOM, err)
	}
	b.addDocument(Document{DocumentSBOM, mediaType, Table{Extent{Length: n}, Digest(hash.Sum(nil))}}, start)
	return nil
}

// addProvenance writes the statement, once it is known what there is to state.
func (b *builder) addProvenance(m *Manifest) error {
	o := &b.Origin
	if o.Builder == "" {
		return nil
	}
	var p provenance.Predicate
	p.BuildDefinition.ExternalParameters = provenance.Parameters{
		Compatible: m.Compatible, Version: m.Version, Channel: m.Channel, Sequence: m.Sequence, Floor: m.Floor, Created: m.Created,
		ChunkSize: b.ChunkSize, Blocks: b.Blocks,
	}
	if b.Compressor != "" {
		p.BuildDefinition.ExternalParameters.Compressor = m.Annotations[annotationCompressor]
	}
	if o.Source != "" {
		p.BuildDefinition.ResolvedDependencies = []provenance.Resource{{URI: o.Source, Digest: provenance.DigestSet{GitCommit: o.Revision}}}
	}
	p.BuildDefinition.ResolvedDependencies = append(p.BuildDefinition.ResolvedDependencies, m.sources()...)
	p.RunDetails.Builder = provenance.Builder{ID: o.Builder, Version: o.BuilderVersion}
	for _, d := range b.documents {
		p.RunDetails.Byproducts = append(p.RunDetails.Byproducts,
			provenance.Resource{Name: d.Name, Digest: provenance.SHA256(d.Digest), MediaType: d.Type})
	}
	statement, err := provenance.New(m.subjects(), p).Marshal()
	if err != nil {
		return err
	}
	start := b.spool.size
	if _, err := b.spool.Write(statement); err != nil {
		return err
	}
	b.addDocument(Document{DocumentProvenance, provenance.MediaType, Table{Extent{Length: int64(len(statement))}, Sum(statement)}}, start)
	return nil
}

// A builtDocument has its bytes in the spool.
type builtDocument struct {
	Document
	start int64
}

func (b *builder) addDocument(d Document, start int64) {
	b.documents = append(b.documents, builtDocument{d, start})
}
