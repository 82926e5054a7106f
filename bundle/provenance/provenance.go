// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/updaterd/updaterd/bundle/canonical"
)

// What the words of a statement are: docs/evidence.md#provenance.
const (
	// MediaType is that of a statement, as a document and as a payload type.
	MediaType = "application/vnd.in-toto+json"
	// BuildType says what the parameters of a statement mean.
	BuildType = "https://github.com/updaterd/updaterd/blob/main/docs/evidence.md#provenance"

	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://slsa.dev/provenance/v1"
)

// MaxSize bounds a statement. The largest one, with every image of a bundle and
// every source that deltas can be made from, is below it.
const MaxSize = 1 << 20

const (
	maxItems = 4096 // subjects, dependencies and by-products, each
	maxText  = 2048
)

// A Statement is an in-toto Statement (v1) with SLSA's provenance (v1) as its
// predicate. The order of the fields is that of the JSON.
type Statement struct {
	Type          string     `json:"_type"`
	Subject       []Resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     Predicate  `json:"predicate"`
}

// A Predicate says how the subjects came to be.
type Predicate struct {
	BuildDefinition BuildDefinition `json:"buildDefinition"`
	RunDetails      RunDetails      `json:"runDetails"`
}

// A BuildDefinition is what went in.
type BuildDefinition struct {
	BuildType            string     `json:"buildType"`
	ExternalParameters   Parameters `json:"externalParameters"`
	ResolvedDependencies []Resource `json:"resolvedDependencies,omitempty"`
}

// Parameters are what the person who made the release asked for.
type Parameters struct {
	Compatible []string  `json:"compatible"`
	Version    string    `json:"version"`
	Channel    string    `json:"channel,omitempty"`
	Sequence   uint64    `json:"sequence"`
	Floor      uint64    `json:"floor"`
	Created    time.Time `json:"created"`
	ChunkSize  int64     `json:"chunkSize"`
	Blocks     bool      `json:"blocks"`
	Compressor string    `json:"compressor,omitempty"`
}

// RunDetails are who built it, and what came out besides.
type RunDetails struct {
	Builder    Builder    `json:"builder"`
	Byproducts []Resource `json:"byproducts,omitempty"`
}

// A Builder is what ran the build, by a URI that says whom one has to trust.
type Builder struct {
	ID      string            `json:"id"`
	Version map[string]string `json:"version,omitempty"`
}

// A Resource is an artifact: SLSA calls it a resource descriptor.
type Resource struct {
	Name        string            `json:"name,omitempty"`
	URI         string            `json:"uri,omitempty"`
	Digest      DigestSet         `json:"digest"`
	MediaType   string            `json:"mediaType,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// A DigestSet has one of the digests, in hex.
type DigestSet struct {
	SHA256    string `json:"sha256,omitempty"`
	GitCommit string `json:"gitCommit,omitempty"`
}

// SHA256 is the digest set of a file.
func SHA256(sum [32]byte) DigestSet { return DigestSet{SHA256: hex.EncodeToString(sum[:])} }

// New is a statement about subjects, of which the types are filled in.
func New(subjects []Resource, p Predicate) *Statement {
	p.BuildDefinition.BuildType = BuildType
	return &Statement{Type: statementType, Subject: subjects, PredicateType: predicateType, Predicate: p}
}

// Source is the source that the subjects were built from, or nil.
func (s *Statement) Source() *Resource {
	deps := s.Predicate.BuildDefinition.ResolvedDependencies
	if len(deps) > 0 && deps[0].URI != "" {
		return &deps[0]
	}
	return nil
}

// Marshal checks the statement and returns its JSON, the same every time.
func (s *Statement) Marshal() ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("write provenance: %v", err)
	}
	b, err := canonical.Marshal(s)
	if err == nil && len(b) > MaxSize {
		err = fmt.Errorf("%d bytes, at most %d", len(b), MaxSize)
	}
	if err != nil {
		return nil, fmt.Errorf("write provenance: %w", err)
	}
	return b, nil
}

// Parse reads a statement, and only what Marshal writes: a bundle's own, about
// which a signed digest tells already that nobody else has had a hand in it.
func Parse(b []byte) (*Statement, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("read provenance: %d bytes, at most %d", len(b), MaxSize)
	}
	s := new(Statement)
	if err := canonical.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read provenance: %v", err)
	}
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("read provenance: %v", err)
	}
	return s, nil
}

func (s *Statement) validate() error {
	d, r := &s.Predicate.BuildDefinition, &s.Predicate.RunDetails
	for _, want := range []struct{ what, got, want string }{
		{"_type", s.Type, statementType}, {"predicateType", s.PredicateType, predicateType}, {"buildType", d.BuildType, BuildType},
	} {
		if want.got != want.want {
			return fmt.Errorf("%s is %.200q, want %q", want.what, want.got, want.want)
		}
	}
	if err := CheckURI("builder id", r.Builder.ID); err != nil {
		return err
	}
	if len(s.Subject) == 0 {
		return errors.New("no subject")
	}
	for what, list := range map[string][]Resource{"subject": s.Subject, "resolvedDependencies": d.ResolvedDependencies, "byproducts": r.Byproducts} {
		if len(list) > maxItems {
			return fmt.Errorf("%d entries in %s, at most %d", len(list), what, maxItems)
		}
		for i := range list {
			if err := list[i].validate(); err != nil {
				return fmt.Errorf("%s %d: %w", what, i, err)
			}
		}
	}
	for _, sub := range s.Subject {
		if sub.Name == "" || sub.Digest.SHA256 == "" {
			return fmt.Errorf("subject %.80q has no name or no sha256", sub.Name)
		}
	}
	return nil
}

func (r *Resource) validate() error {
	if r.URI != "" {
		if err := CheckURI("uri", r.URI); err != nil {
			return err
		}
	}
	d := r.Digest
	switch {
	case (d.SHA256 == "") == (d.GitCommit == ""):
		return errors.New("want one digest, sha256 or gitCommit")
	case d.SHA256 != "" && !isHex(d.SHA256, 64):
		return fmt.Errorf("sha256 %.80q: want 64 lower-case hex digits", d.SHA256)
	case d.GitCommit != "":
		return CheckRevision(d.GitCommit)
	}
	return nil
}

// CheckURI tells whether s is fit to name a builder or a source.
func CheckURI(what, s string) error {
	scheme, rest, found := strings.Cut(s, ":")
	if !found || strings.Trim(scheme, "abcdefghijklmnopqrstuvwxyz+-.") != "" || scheme == "" || rest == "" || len(s) > maxText || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return fmt.Errorf("%s %.200q: want a URI, like https://ci.example.com/release", what, s)
	}
	return nil
}

// CheckRevision tells whether s is the full name of a git commit.
func CheckRevision(s string) error {
	if !isHex(s, 40, 64) {
		return fmt.Errorf("revision %.80q: want the whole name of a git commit, 40 or 64 lower-case hex digits", s)
	}
	return nil
}

func isHex(s string, lengths ...int) bool {
	return slices.Contains(lengths, len(s)) && strings.Trim(s, "0123456789abcdef") == ""
}
