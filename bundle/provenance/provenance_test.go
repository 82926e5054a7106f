// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func example() *Statement {
	return New([]Resource{{Name: "rootfs", Digest: SHA256([32]byte{1})}}, Predicate{
		BuildDefinition: BuildDefinition{
			ExternalParameters: Parameters{
				Compatible: []string{"demo"}, Version: "1", Sequence: 7, Created: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC), ChunkSize: 1 << 20,
			},
			ResolvedDependencies: []Resource{
				{URI: "git+https://git.example.com/demo", Digest: DigestSet{GitCommit: strings.Repeat("a", 40)}},
				{Name: "rootfs <old>", Digest: SHA256([32]byte{2}), Annotations: map[string]string{"buildId": "1"}},
			},
		},
		RunDetails: RunDetails{Builder: Builder{ID: "https://ci.example.com"}, Byproducts: []Resource{{Name: "sbom", Digest: SHA256([32]byte{3})}}},
	})
}

func marshal(t testing.TB, s *Statement) []byte {
	t.Helper()
	b, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStatementComesBack(t *testing.T) {
	want := example()
	got, err := Parse(marshal(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("after a round trip (-want +got):\n%s", d)
	}
	if src := got.Source(); src == nil || src.URI != "git+https://git.example.com/demo" {
		t.Errorf("Source = %v", src)
	}
	want.Predicate.BuildDefinition.ResolvedDependencies = want.Predicate.BuildDefinition.ResolvedDependencies[1:]
	if src := want.Source(); src != nil {
		t.Errorf("without a source, Source = %v", src)
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(marshal(t, example()))
	for name, tc := range map[string]struct{ old, new, want string }{
		"another statement version": {"Statement/v1", "Statement/v0.1", "_type"},
		"another predicate":         {"slsa.dev/provenance/v1", "slsa.dev/provenance/v0.2", "predicateType"},
		"another build type":        {"evidence.md", "other.md", "buildType"},
		"unknown member":            {`"subject"`, `"extra":1,"subject"`, "unknown field"},
		"repeated member":           {`"subject"`, `"subject":[],"subject"`, "not in canonical form"},
		"case-folded member":        {`"subject"`, `"Subject"`, "not in canonical form"},
		"white space":               {`"subject":`, `"subject": `, "not in canonical form"},
		"no subject":                {`[{"name":"rootfs","digest":{"sha256":"01` + strings.Repeat("0", 62) + `"}}]`, `[]`, "no subject"},
		"subject without a name":    {`"name":"rootfs",`, ``, "no name"},
		"upper-case digest":         {"01000", "0A000", "hex"},
		"short digest":              {"01000", "01", "hex"},
		"no digest":                 {`"gitCommit":"` + strings.Repeat("a", 40) + `"`, ``, "one digest"},
		"two digests":               {`"gitCommit"`, `"sha256":"00","gitCommit"`, "one digest"},
		"a branch":                  {strings.Repeat("a", 40), "main", "revision"},
		"builder with a space":      {"https://ci.example.com", "https://ci example.com", "URI"},
		"no builder":                {`"https://ci.example.com"`, `""`, "URI"},
		"a number too large":        {`"sequence":7`, `"sequence":18446744073709551616`, "sequence"},
	} {
		b := strings.Replace(good, tc.old, tc.new, 1)
		if b == good {
			t.Fatalf("%s: %q is not there", name, tc.old)
		}
		if s, err := Parse([]byte(b)); s != nil || err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: Parse = %v, %v; want %q", name, s, err, tc.want)
		}
	}
	for name, b := range map[string]string{
		"nothing": "", "null": "null", "two": good + good, "a line feed": good + "\n", "cut short": good[:len(good)-1],
		"too long": strings.Repeat(" ", MaxSize) + good, "deep nesting": strings.Repeat("[", 100_000),
	} {
		if s, err := Parse([]byte(b)); s != nil || err == nil {
			t.Errorf("%s: Parse = %v, %v", name, s, err)
		}
	}
}

func TestMarshalRefuses(t *testing.T) {
	for name, change := range map[string]func(s *Statement){
		"too many sources": func(s *Statement) {
			s.Predicate.BuildDefinition.ResolvedDependencies = make([]Resource, maxItems+1)
		},
		"no builder": func(s *Statement) { s.Predicate.RunDetails.Builder.ID = "" },
		"too long": func(s *Statement) {
			s.Predicate.BuildDefinition.ExternalParameters.Version = strings.Repeat("1", MaxSize)
		},
	} {
		s := example()
		change(s)
		if b, err := s.Marshal(); err == nil {
			t.Errorf("%s: Marshal = %d bytes", name, len(b))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(marshal(f, example()))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			if s != nil {
				t.Fatal("an error and a statement")
			}
			return
		}
		if again, err := s.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("parsed %q, wrote %q, %v", b, again, err)
		}
	})
}
