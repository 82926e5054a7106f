// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/provenance"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutInfo = `Usage: updater-bundle info [--keyring DIR [--threshold NUMBER | --policy FILE]] [--json] FILE

Tells what is in a bundle: the release, its images, and for each recipe its
kind, the source it needs and the bytes a device downloads for it (tables and
data; the envelope comes on top once). With a blocks recipe it downloads the
table and those data that no image of its own has.

Of channel metadata it tells the channel, the serial, the times and the releases,
of a permit whom it lets go back, to what, and until when.

The documents of a bundle are evidence for people and tools; a device downloads
none of them, and "updater-bundle extract" writes one to a file.

Without --keyring nobody checks the signatures, and the output says so: such a
bundle may come from anyone. The digest is what the policy of devices denies a
release by.

  updater-bundle info --keyring keys/ demo-1.2.0.upb
`

func (c *command) info(_ context.Context, args []string) error {
	f := c.Flags("info", aboutInfo)
	asJSON := f.Bool("json", false, "print JSON")
	trust := cli.TrustOptions(f)
	operands, err := c.Parse(f, args, "FILE")
	if err != nil {
		return err
	}
	if err := trust.Check(); err != nil {
		return err
	}
	var found any
	var show func()
	switch path := operands[0]; {
	case isPermit(path):
		about, err := lookPermit(path, trust)
		if err != nil {
			return err
		}
		found, show = about, func() {
			printTrust(c.Stdout, "permit", about.Verified, about.KeyIDs)
			c.printPermit(about.Permit)
			fmt.Fprintf(c.Stdout, "digest      %s\n", about.Digest)
		}
	case isChannel(path):
		about, err := lookChannel(operands[0], trust)
		if err != nil {
			return err
		}
		found, show = about, func() {
			printTrust(c.Stdout, "channel metadata", about.Verified, about.KeyIDs)
			c.printChannel(about.Metadata)
		}
	default:
		about, err := look(operands[0], trust)
		if err != nil {
			return err
		}
		found, show = about, func() { printAbout(c.Stdout, about) }
	}
	if *asJSON {
		enc := json.NewEncoder(c.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(found)
	}
	show()
	return nil
}

// about is what info --json prints.
type about struct {
	Verified bool     `json:"verified"`
	KeyIDs   []string `json:"key_ids"` // that signed it, if verified
	// LogEntries have a log only if one of the policy is proven to have them.
	LogEntries []sign.LogEntry `json:"log_entries,omitempty"`
	// Digest identifies the release; a policy denies it by this.
	Digest       string    `json:"digest"`
	FileSize     int64     `json:"file_size"`
	EnvelopeSize int64     `json:"envelope_size"` // header included
	Format       int       `json:"format"`
	Version      string    `json:"version"`
	Channel      string    `json:"channel,omitempty"`
	Sequence     uint64    `json:"sequence"`
	Floor        uint64    `json:"floor"`
	Created      time.Time `json:"created"`
	Compatible   []string  `json:"compatible"`
	// Recipients are the ids of whom the images are encrypted for.
	Recipients  []string          `json:"recipients,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Images      []aboutImage      `json:"images"`
	Documents   []aboutDocument   `json:"documents,omitempty"`
	Provenance  *aboutProvenance  `json:"provenance,omitempty"`

	manifest   *bundle.Manifest
	signatures int // that nobody checked
}

type aboutDocument struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Size   int64  `json:"size"`
	Digest string `json:"digest"`
}

// aboutProvenance is the gist; the whole is the document.
type aboutProvenance struct {
	Builder   string `json:"builder"`
	BuildType string `json:"build_type"`
	Source    string `json:"source,omitempty"`
	Revision  string `json:"revision,omitempty"`
}

type aboutImage struct {
	Class     string        `json:"class"`
	Size      int64         `json:"size"`
	Digest    string        `json:"digest"`
	BuildID   string        `json:"build_id,omitempty"`
	ChunkSize int64         `json:"chunk_size"`
	Chunks    int           `json:"chunks"`
	Recipes   []aboutRecipe `json:"recipes"`
}

type aboutRecipe struct {
	Kind     string         `json:"kind"`
	Source   *bundle.Source `json:"source,omitempty"`
	Frame    int64          `json:"frame,omitempty"`
	Prefix   int64          `json:"prefix,omitempty"`
	Download int64          `json:"download"`
}

// look opens a bundle with a keyring, or shows what nobody has verified.
func look(path string, trust *cli.Trust) (*about, error) {
	if trust.Dir != "" {
		f, err := open(trust, path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return describeFile(f)
	}
	d, err := bundle.OpenDraft(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return describeDraft(d)
}

func describeFile(f *bundle.File) (*about, error) {
	a := describeManifest(f.Manifest, f.PayloadOffset)
	a.Verified, a.KeyIDs, a.Digest = true, f.KeyIDs, f.Digest.String()
	var err error
	if a.LogEntries, err = f.LogEntries(); err != nil {
		return nil, err
	}
	return a, a.explain(f.Provenance())
}

func describeDraft(d *bundle.Draft) (*about, error) {
	a := describeManifest(d.Manifest, d.PayloadOffset)
	a.Digest, a.signatures = d.Digest.String(), d.Signatures
	var err error
	if a.LogEntries, err = d.LogEntries(); err != nil {
		return nil, err
	}
	return a, a.explain(d.Provenance())
}

// explain takes up the provenance, if there is one.
func (a *about) explain(s *provenance.Statement, err error) error {
	if s == nil || err != nil {
		return err
	}
	a.Provenance = &aboutProvenance{Builder: s.Predicate.RunDetails.Builder.ID, BuildType: s.Predicate.BuildDefinition.BuildType}
	if src := s.Source(); src != nil {
		a.Provenance.Source, a.Provenance.Revision = src.URI, src.Digest.GitCommit
	}
	return nil
}

func describeManifest(m *bundle.Manifest, head int64) *about {
	a := &about{
		KeyIDs: []string{}, FileSize: head + m.PayloadSize(), EnvelopeSize: head,
		Format: m.Format, Version: m.Version, Channel: m.Channel, Sequence: m.Sequence, Floor: m.Floor,
		Created: m.Created, Compatible: m.Compatible, Annotations: m.Annotations, manifest: m,
	}
	if m.Encryption != nil {
		for _, r := range m.Encryption.Recipients {
			a.Recipients = append(a.Recipients, r.ID)
		}
	}
	for i := range m.Images {
		img := &m.Images[i]
		one := aboutImage{
			Class: img.Class, Size: img.Size, Digest: img.Digest.String(), BuildID: img.BuildID,
			ChunkSize: img.ChunkSize, Chunks: img.ChunkCount(),
		}
		for k := range img.Recipes {
			r := &img.Recipes[k]
			one.Recipes = append(one.Recipes, aboutRecipe{Kind: r.Kind, Source: r.Source, Frame: r.Frame, Prefix: r.Prefix, Download: r.Download(img)})
		}
		a.Images = append(a.Images, one)
	}
	for _, d := range m.Documents {
		a.Documents = append(a.Documents, aboutDocument{d.Name, d.Type, d.Length, d.Digest.String()})
	}
	return a
}

// show is printAbout for who is to sign.
func (a *about) show(w io.Writer) error {
	printAbout(w, a)
	return nil
}

// printTrust tells whether anybody vouches for what follows.
func printTrust(out io.Writer, what string, verified bool, keys []string) {
	if verified {
		fmt.Fprintf(out, "signatures verified, key %s\n", strings.Join(keys, ", "))
	} else {
		fmt.Fprintf(out, "UNVERIFIED: nobody checked the signatures, so this %s may come from anyone. Give --keyring DIR.\n", what)
	}
}

func printAbout(out io.Writer, a *about) {
	if a.Verified || a.signatures > 0 {
		printTrust(out, "bundle", a.Verified, a.KeyIDs)
	} else {
		fmt.Fprintln(out, "UNSIGNED: this bundle may come from anyone, and no device accepts it yet. See updater-bundle help sign.")
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "version\t%s\n", a.Version)
	if a.Channel != "" {
		fmt.Fprintf(w, "channel\t%s\n", a.Channel)
	}
	fmt.Fprintf(w, "sequence\t%d\n", a.Sequence)
	fmt.Fprintf(w, "floor\t%d\n", a.Floor)
	fmt.Fprintf(w, "created\t%s\n", a.Created.Format(time.RFC3339))
	fmt.Fprintf(w, "compatible\t%s\n", strings.Join(a.Compatible, ", "))
	for _, id := range a.Recipients {
		fmt.Fprintf(w, "encrypted for\t%s\n", id)
	}
	fmt.Fprintf(w, "digest\t%s\n", a.Digest)
	fmt.Fprintf(w, "file\t%d bytes, %d of them header and envelope\n", a.FileSize, a.EnvelopeSize)
	for _, k := range sortedKeys(a.Annotations) {
		fmt.Fprintf(w, "annotation\t%s: %s\n", k, strings.NewReplacer("\n", "\n  ", "\t", " ").Replace(a.Annotations[k]))
	}
	for _, e := range a.LogEntries {
		fmt.Fprintf(w, "logged\t%v\n", e)
	}
	if p := a.Provenance; p != nil {
		fmt.Fprintf(w, "built by\t%s\n", p.Builder)
		if p.Source != "" {
			fmt.Fprintf(w, "built from\t%s, commit %s\n", p.Source, p.Revision)
		}
	}
	for _, d := range a.Documents {
		fmt.Fprintf(w, "document\t%s: %s, %d bytes, %s\n", d.Name, d.Type, d.Size, d.Digest)
	}
	w.Flush()
	printImages(out, a.manifest)
}

// printImages is the part of info that create shows too.
func printImages(out io.Writer, m *bundle.Manifest) {
	for i := range m.Images {
		img := &m.Images[i]
		build := "no build id"
		if img.BuildID != "" {
			build = "build " + img.BuildID
		}
		fmt.Fprintf(out, "\nimage %s: %s, %s, in chunks of %s\n  %v\n", img.Class, size(img.Size), build, size(img.ChunkSize), img.Digest)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "  KIND\tDOWNLOAD\tBYTES\tSOURCE")
		for k := range img.Recipes {
			r := &img.Recipes[k]
			from := "none"
			if r.Kind == bundle.KindBlocks {
				from = "any image, which saves a part"
			}
			if r.Source != nil {
				from = r.Source.Digest.String()
				if r.Source.BuildID != "" {
					from = "build " + r.Source.BuildID + ", " + from
				}
			}
			n := r.Download(img)
			fmt.Fprintf(w, "  %s\t%s\t%d\t%s\n", r.Kind, size(n), n, from)
		}
		w.Flush()
	}
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
