// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/updaterd/updaterd/bundle/provenance"
)

// copyTo copies a document out of the payload. What w has got is to be dropped
// if there is an error: the digest is known only at the end.
func (d *Document) copyTo(w io.Writer, payload io.ReaderAt) error {
	hash := sha256.New()
	r := io.NewSectionReader(payload, d.Offset, d.Length)
	switch n, err := io.Copy(io.MultiWriter(w, hash), r); {
	case err != nil:
		return fmt.Errorf("read document %q: %w", d.Name, err)
	case n != d.Length:
		return fmt.Errorf("read document %q: %w: the file was cut off after it was opened", d.Name, ErrTruncated)
	}
	if got := Digest(hash.Sum(nil)); got != d.Digest {
		return fmt.Errorf("read document %q: %w: digest is %v, the manifest says %v", d.Name, ErrEncoded, got, d.Digest)
	}
	return nil
}

// SaveDocument writes a document to the file out, which appears only when all of
// it is authentic.
func (f *File) SaveDocument(name, out string) error {
	d := f.Manifest.Document(name)
	if d == nil {
		return fmt.Errorf("there is no document %q in the bundle; it has %s", name, f.Manifest.documents())
	}
	w, err := createReplacement(out)
	if err != nil {
		return err
	}
	defer w.discard()
	if err := d.copyTo(w, f.payload()); err != nil {
		return err
	}
	return w.commit()
}

func (m *Manifest) documents() string {
	if len(m.Documents) == 0 {
		return "none"
	}
	var names []string
	for _, d := range m.Documents {
		names = append(names, d.Name)
	}
	return strings.Join(names, ", ")
}

func (f *File) payload() io.ReaderAt {
	return io.NewSectionReader(f.file, f.PayloadOffset, f.PayloadSize)
}

// Provenance reads the statement of where the images come from; nil if there is
// none. It is about exactly the images and the sources of this bundle.
func (f *File) Provenance() (*provenance.Statement, error) {
	return ReadProvenance(f.Manifest, f.payload())
}

// ReadProvenance is [File.Provenance] for a manifest and the payload behind it. The
// statement is as trustworthy as the manifest. It is no method of the manifest,
// because a device's program would have all of those in it.
func ReadProvenance(m *Manifest, payload io.ReaderAt) (*provenance.Statement, error) {
	d := m.Document(DocumentProvenance)
	if d == nil {
		return nil, nil
	}
	if d.Length > provenance.MaxSize {
		return nil, fmt.Errorf("read document %q: %w: %d bytes, at most %d", d.Name, ErrMalformed, d.Length, provenance.MaxSize)
	}
	var b bytes.Buffer
	if err := d.copyTo(&b, payload); err != nil {
		return nil, err
	}
	s, err := provenance.Parse(b.Bytes())
	if err != nil {
		return nil, fmt.Errorf("read document %q: %w: %v", d.Name, ErrMalformed, err)
	}
	if err := m.matches(s); err != nil {
		return nil, fmt.Errorf("read document %q: %w: %v", d.Name, ErrMalformed, err)
	}
	return s, nil
}

// matches tells whether a statement is about what the manifest is about.
func (m *Manifest) matches(s *provenance.Statement) error {
	same := func(a, b provenance.Resource) bool { return a.Name == b.Name && a.Digest == b.Digest }
	if !slices.EqualFunc(s.Subject, m.subjects(), same) {
		return errors.New("its subjects are not the images of this bundle")
	}
	deps := s.Predicate.BuildDefinition.ResolvedDependencies
	if s.Source() != nil {
		deps = deps[1:]
	}
	if !slices.EqualFunc(deps, m.sources(), same) {
		return errors.New("its dependencies are not the sources of this bundle's deltas")
	}
	if p := s.Predicate.BuildDefinition.ExternalParameters; p.Version != m.Version || p.Channel != m.Channel || p.Sequence != m.Sequence {
		return fmt.Errorf("it is about version %.80q of channel %.80q, sequence %d", p.Version, p.Channel, p.Sequence)
	}
	return nil
}

// subjects are the images, as provenance knows them.
func (m *Manifest) subjects() (list []provenance.Resource) {
	for i := range m.Images {
		list = append(list, resource(m.Images[i].Class, m.Images[i].Digest, m.Images[i].BuildID))
	}
	return list
}

// sources are the images that deltas were made from.
func (m *Manifest) sources() (list []provenance.Resource) {
	for i := range m.Images {
		for _, r := range m.Images[i].Recipes {
			if s := r.Source; s != nil {
				list = append(list, resource(m.Images[i].Class+" (source of a delta)", s.Digest, s.BuildID))
			}
		}
	}
	return list
}

func resource(name string, digest Digest, buildID string) provenance.Resource {
	r := provenance.Resource{Name: name, Digest: provenance.SHA256(digest)}
	if buildID != "" {
		r.Annotations = map[string]string{"buildId": buildID}
	}
	return r
}
