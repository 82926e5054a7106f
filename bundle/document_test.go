// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bundle/provenance"
	"github.com/updaterd/updaterd/bundle/sbom"
)

const (
	testSBOM     = `{"spdxVersion":"SPDX-2.3","name":"demo"}` + "\n"
	testRevision = "0123456789abcdef0123456789abcdef01234567"
)

// evidentSpec is testSpec with all evidence there can be.
func evidentSpec(t testing.TB, dir string) Spec {
	s := testSpec(t, dir)
	s.SBOM = writeFile(t, dir, "sbom.json", []byte(testSBOM))
	s.Origin = Origin{
		Builder: "https://ci.example.com/release", BuilderVersion: map[string]string{"updater-bundle": "1.0"},
		Source: "git+https://git.example.com/demo", Revision: testRevision,
	}
	return s
}

func buildEvident(t testing.TB, dir string) string {
	t.Helper()
	out := filepath.Join(dir, "test.upb")
	if err := Build(context.Background(), out, evidentSpec(t, dir)); err != nil {
		t.Fatal(err)
	}
	return out
}

func hexSum(b []byte) string {
	sum := Sum(b)
	return hex.EncodeToString(sum[:])
}

// The statement, member by member, as tools for such statements expect it.
func TestProvenance(t *testing.T) {
	dir := t.TempDir()
	path := buildEvident(t, dir)
	f := openTest(t, path)
	out := filepath.Join(dir, "statement")
	if err := f.SaveDocument(DocumentProvenance, out); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1",`+
		`"subject":[{"name":"rootfs","digest":{"sha256":"%s"},"annotations":{"buildId":"20260131"}},{"name":"bootloader","digest":{"sha256":"%s"}}],`+
		`"predicateType":"https://slsa.dev/provenance/v1","predicate":{"buildDefinition":{`+
		`"buildType":"https://github.com/updaterd/updaterd/blob/main/docs/evidence.md#provenance",`+
		`"externalParameters":{"compatible":["demo-board"],"version":"1.2.0","sequence":7,"floor":5,"created":"2026-01-31T12:00:00Z","chunkSize":4096,"blocks":false},`+
		`"resolvedDependencies":[{"uri":"git+https://git.example.com/demo","digest":{"gitCommit":"%s"}},`+
		`{"name":"rootfs (source of a delta)","digest":{"sha256":"%s"},"annotations":{"buildId":"20260101"}}]},`+
		`"runDetails":{"builder":{"id":"https://ci.example.com/release","version":{"updater-bundle":"1.0"}},`+
		`"byproducts":[{"name":"sbom","digest":{"sha256":"%s"},"mediaType":"application/spdx+json"}]}}}`,
		hexSum(testImage("20260131", 2)), hexSum(text(500, 9)), testRevision, hexSum(testImage("20260101", 1)), hexSum([]byte(testSBOM)))
	if got := string(readFile(t, out)); got != want {
		t.Errorf("statement:\n%s\nwant:\n%s", got, want)
	}
	s, err := f.Provenance()
	if err != nil || s == nil || s.Source().Digest.GitCommit != testRevision {
		t.Errorf("Provenance = %+v, %v", s, err)
	}
	if err := f.SaveDocument(DocumentSBOM, out); err != nil || string(readFile(t, out)) != testSBOM {
		t.Errorf("sbom: %v, %q", err, readFile(t, out))
	}
	if err := f.SaveDocument("notes", out); err == nil || !strings.Contains(err.Error(), "sbom, provenance") {
		t.Errorf("a document that is not there: %v", err)
	}
	if _, err := f.Check(context.Background(), nil); err != nil {
		t.Error(err)
	}
	// The same command, the same bytes.
	again := t.TempDir()
	if !bytes.Equal(readFile(t, buildEvident(t, again)), readFile(t, path)) {
		t.Error("built twice, the bundles differ")
	}
	checkNoLitter(t, dir, "v1", "v2", "boot", "sbom.json", "test.upb", "statement")
}

// A device never comes near the documents: they are the end of the file.
func TestDocumentsComeLast(t *testing.T) {
	f := openTest(t, buildEvident(t, t.TempDir()))
	m := f.Manifest
	last := m.Images[1].Full().Data
	if got, want := m.Documents[0].Offset, last.Offset+last.Length; got != want {
		t.Errorf("the first document is at %d; want %d", got, want)
	}
	if d := m.Documents[1]; d.Offset+d.Length != f.PayloadSize {
		t.Error("the payload goes on after the last document")
	}
}

func TestEveryByteOfADocumentCounts(t *testing.T) {
	dir := t.TempDir()
	path := buildEvident(t, dir)
	good := readFile(t, path)
	f := openTest(t, path)
	out := filepath.Join(dir, "out")
	for at := f.PayloadOffset + f.Manifest.Documents[0].Offset; at < int64(len(good)); at++ {
		bad := bytes.Clone(good)
		bad[at] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil { // the same inode
			t.Fatal(err)
		}
		if _, err := f.Check(context.Background(), nil); !errors.Is(err, ErrEncoded) {
			t.Fatalf("byte %d: Check: %v; want ErrEncoded", at, err)
		}
		name := DocumentSBOM
		if at >= f.PayloadOffset+f.Manifest.Documents[1].Offset {
			name = DocumentProvenance
		}
		if err := f.SaveDocument(name, out); !errors.Is(err, ErrEncoded) {
			t.Fatalf("byte %d: SaveDocument: %v; want ErrEncoded", at, err)
		}
	}
	checkNoLitter(t, dir, "v1", "v2", "boot", "sbom.json", "test.upb")
}

func TestBuildRefusesEvidence(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(s *Spec)
		want   string
	}{
		"no such sbom":            {func(s *Spec) { s.SBOM = "/nonexistent" }, "no such file"},
		"an image as the sbom":    {func(s *Spec) { s.SBOM = s.Images[0].Path }, "neither SPDX"},
		"source without builder":  {func(s *Spec) { s.Origin.Builder = "" }, "no builder id"},
		"source without revision": {func(s *Spec) { s.Origin.Revision = "" }, "go together"},
		"revision without source": {func(s *Spec) { s.Origin.Source = "" }, "go together"},
		"builder that is no URI":  {func(s *Spec) { s.Origin.Builder = "my laptop" }, "want a URI"},
		"source that is a path":   {func(s *Spec) { s.Origin.Source = "/src/demo" }, "want a URI"},
		"a branch as revision":    {func(s *Spec) { s.Origin.Revision = "main" }, "whole name of a git commit"},
		"a short revision":        {func(s *Spec) { s.Origin.Revision = "0123456" }, "whole name of a git commit"},
	} {
		dir := t.TempDir()
		s := evidentSpec(t, dir)
		s.Progress = func(int64, int64) { t.Errorf("%s: only found out during the work", name) }
		tc.change(&s)
		if err := Build(context.Background(), filepath.Join(dir, "out"), s); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: Build: %v; want %q", name, err, tc.want)
		}
		checkNoLitter(t, dir, "v1", "v2", "boot", "sbom.json")
	}
}

// Signed, but about something else: for instance copied from another release.
func TestProvenanceOfAnotherBundle(t *testing.T) {
	signer, ring := testKey(t, "alice")
	image := noise(testChunk, 1)
	other := *provenance.New([]provenance.Resource{{Name: "rootfs", Digest: provenance.SHA256(Sum([]byte("another")))}},
		provenance.Predicate{RunDetails: provenance.RunDetails{Builder: provenance.Builder{ID: "https://ci.example.com"}}})
	honest := other
	honest.Subject = []provenance.Resource{{Name: "rootfs", Digest: provenance.SHA256(Sum(image))}}
	honest.Predicate.BuildDefinition.ExternalParameters = provenance.Parameters{Version: "1.2.0", Channel: testManifest().Channel, Sequence: 7}
	older := honest
	older.Predicate.BuildDefinition.ExternalParameters.Sequence = 6
	nightly := honest
	nightly.Predicate.BuildDefinition.ExternalParameters.Channel = "nightly"
	more := honest
	more.Predicate.BuildDefinition.ResolvedDependencies = []provenance.Resource{{Name: "rootfs (source of a delta)", Digest: honest.Subject[0].Digest}}
	marshal := func(s provenance.Statement) []byte {
		b, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, tc := range map[string]struct {
		statement []byte
		want      string // "": good
	}{
		"of this one":           {marshal(honest), ""},
		"other images":          {marshal(other), "subjects are not the images"},
		"another sequence":      {marshal(older), "sequence 6"},
		"another channel":       {marshal(nightly), `channel "nightly"`},
		"a source too many":     {marshal(more), "not the sources"},
		"not a statement":       {[]byte(`{"a":1}`), "unknown field"},
		"longer than it may be": {bytes.Repeat([]byte(" "), provenance.MaxSize+1), "at most 1048576"},
	} {
		d := Document{DocumentProvenance, provenance.MediaType, Table{Extent{Length: int64(len(tc.statement))}, Sum(tc.statement)}}
		b := append(oneChunk(t, signer, image, Sum(image), Sum(image), d), tc.statement...)
		f, err := Open(writeFile(t, t.TempDir(), "b", b), ring.Policy(1))
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Check(context.Background(), nil)
		f.Close()
		if tc.want == "" && err != nil || tc.want != "" && (!errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: Check: %v; want ErrMalformed with %q", name, err, tc.want)
		}
	}
}

func TestDocumentRules(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(d []Document) []Document
		want   string
	}{
		"name with a slash":  {func(d []Document) []Document { d[0].Name = "../sbom"; return d }, "document"},
		"no name":            {func(d []Document) []Document { d[0].Name = ""; return d }, "document"},
		"type with a space":  {func(d []Document) []Document { d[0].Type = "a b"; return d }, "media type"},
		"no bytes":           {func(d []Document) []Document { d[0].Length = 0; return d }, "want 1 to"},
		"a negative length":  {func(d []Document) []Document { d[0].Length = -1; return d }, "want 1 to"},
		"too long":           {func(d []Document) []Document { d[0].Length = MaxDocument + 1; return d }, "want 1 to"},
		"the same name":      {func(d []Document) []Document { return append(d, d[0]) }, "two documents"},
		"too many":           {func(d []Document) []Document { return make([]Document, MaxDocuments+1) }, "at most"},
		"a gap":              {func(d []Document) []Document { d[0].Offset++; return d }, "no gap"},
		"over the last data": {func(d []Document) []Document { d[0].Offset--; return d }, "no gap"},
	} {
		m := testManifest()
		m.Documents = []Document{{DocumentSBOM, sbom.SPDXJSON, Table{Extent: Extent{Length: 10}}}}
		m.place()
		if err := m.validate(); err != nil {
			t.Fatal(err)
		}
		m.Documents = tc.change(m.Documents)
		if tc.want != "no gap" {
			m.place()
		}
		if err := m.validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want %q", name, err, tc.want)
		}
	}
}
