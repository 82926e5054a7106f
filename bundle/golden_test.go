// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bundle/provenance"
	"github.com/updaterd/updaterd/sign"
)

var update = flag.Bool("update", false, "build testdata/golden.bundle again and write its description into docs/bundle-format.md")

const (
	goldenFile = "testdata/golden.bundle"
	formatDoc  = "../docs/bundle-format.md"
	docBegin   = "<!-- example: written by go test ./bundle -update -->\n"
	docEnd     = "<!-- end of example -->\n"
)

// goldenImages are small, and their chunks are of every kind.
func goldenImages() (v1, v2, boot []byte) {
	image := func(build string) []byte {
		b := slices.Concat(text(testChunk, 7), make([]byte, testChunk), noise(100, 1), noise(testChunk-100, 2))
		block := make([]byte, scanStep)
		copy(block, osRelease(build))
		copy(b[scanStep:], block)
		return append(b, noise(100, 1)...) // as in the chunk before it
	}
	return image("1.1"), image("1.2"), []byte("U-Boot 2026.01\n")
}

func buildGolden(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	signer, _ := testKey(t, "golden")
	v1, v2, boot := goldenImages()
	err := Build(context.Background(), goldenFile, Spec{
		Compatible: []string{"demo-board"}, Version: "1.2", Sequence: 12, Floor: 10, Created: testTime,
		ChunkSize: testChunk, Prefix: testChunk, Blocks: true, Signers: []sign.Signer{signer},
		Images: []ImageSpec{
			{Class: "rootfs", Path: writeFile(t, dir, "v2", v2), Deltas: []SourceSpec{{Path: writeFile(t, dir, "v1", v1)}}},
			{Class: "bootloader", Path: writeFile(t, dir, "boot", boot)},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A bundle that was built once is readable for good.
func TestGolden(t *testing.T) {
	if *update {
		buildGolden(t)
	}
	_, ring := testKey(t, "golden")
	f, err := Open(goldenFile, ring.Policy(1))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Check(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	v1, v2, boot := goldenImages()
	source := writeFile(t, dir, "v1", v1)
	for _, tc := range []struct {
		class, source string
		want          []byte
	}{{"rootfs", "", v2}, {"rootfs", source, v2}, {"bootloader", "", boot}} {
		out := filepath.Join(dir, "out")
		a, err := f.Apply(context.Background(), tc.class, given(tc.source), out, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.Fallback != 0 || (a.Patched > 0) != (tc.source != "") || !bytes.Equal(readFile(t, out), tc.want) {
			t.Errorf("%s from %q: %+v", tc.class, tc.source, a)
		}
	}
}

// The worked example of the format's description is the golden bundle, to the byte.
func TestWorkedExample(t *testing.T) {
	golden := readFile(t, goldenFile)
	doc := string(readFile(t, formatDoc))
	before, rest, ok1 := strings.Cut(doc, docBegin)
	old, after, ok2 := strings.Cut(rest, docEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the example", formatDoc)
	}
	want := example(t, golden)
	if *update && old != want {
		if err := os.WriteFile(formatDoc, []byte(before+docBegin+want+docEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		old = want
	}
	if old != want {
		t.Errorf("the example in %s is not about %s; run go test ./bundle -update and read what changes", formatDoc, goldenFile)
	}
	// What a reader copies out of the page is the file.
	if got := fromExample(t, old); !bytes.Equal(got, golden) {
		t.Errorf("the bytes in %s are not those of %s", formatDoc, goldenFile)
	}
}

// example describes a bundle: every byte of it is there once, in a block that
// is either hex or, for the envelope, the text itself.
func example(t *testing.T, golden []byte) string {
	t.Helper()
	head, err := ReadHead(bytes.NewReader(golden))
	if err != nil {
		t.Fatal(err)
	}
	d, err := unverified(head)
	if err != nil {
		t.Fatal(err)
	}
	m, manifest := d.Manifest, d.Bytes()
	payload := golden[len(head):]
	var b strings.Builder
	fmt.Fprintf(&b, "### Header, bytes 0 to %d\n\n", HeaderSize-1)
	dump(&b, "magic, version %d, and the envelope's length %d", golden[:HeaderSize], HeaderVersion, len(head)-HeaderSize)
	fmt.Fprintf(&b, "### Envelope, bytes %d to %d\n\n```json\n%s\n```\n\n", HeaderSize, len(head)-1, head[HeaderSize:])
	fmt.Fprintf(&b, "Its payload, decoded from base64, is the manifest: %d bytes, digest `%v`, which is the identity of the release.\n\n```text\n%s\n```\n\n", len(manifest), Sum(manifest), manifest)
	fmt.Fprintf(&b, "### Payload, %d bytes from byte %d on\n\n", len(payload), len(head))
	for e, what := range m.extents() {
		what = strings.ReplaceAll(what, `"`, "")
		if e.Length == 0 {
			fmt.Fprintf(&b, "Payload %d: %s, no bytes.\n\n", e.Offset, what)
			continue
		}
		dump(&b, "Payload %d to %d: %s", payload[e.Offset:][:e.Length], e.Offset, e.Offset+e.Length-1, what)
	}
	fmt.Fprint(&b, "### What the recipe tables say\n\n| image | recipe | chunk or frame | kind | payload offset | length |\n|---|---|---|---|---|---|\n")
	for i := range m.Images {
		img := &m.Images[i]
		for k := range img.Recipes {
			r := &img.Recipes[k]
			table := payload[r.Table.Offset:][:r.Table.Length]
			if r.Kind == KindBlocks {
				describeFrames(t, &b, img, k, payload[img.Chunks.Offset:][:img.Chunks.Length], table)
				continue
			}
			entries, err := ParseTable(img, r, table)
			if err != nil {
				t.Fatal(err)
			}
			for c, e := range entries {
				fmt.Fprintf(&b, "| %s | %d, %s | %d | %v | %d | %d |\n", img.Class, k, r.Kind, c, e.Kind, e.Offset, e.Length)
			}
		}
	}
	b.WriteString("\n")
	return b.String()
}

func describeFrames(t *testing.T, b *strings.Builder, img *Image, k int, chunks, table []byte) {
	t.Helper()
	digests, err := ParseChunks(img, chunks)
	if err != nil {
		t.Fatal(err)
	}
	frames, err := ParseFrames(img, &img.Recipes[k], digests, table)
	if err != nil {
		t.Fatal(err)
	}
	for i := range digests {
		for n, f := range frames.Frames(i) {
			fmt.Fprintf(b, "| %s | %d, blocks | %d, frame %d | %v | %d | %d |\n", img.Class, k, i, n, f.Kind, f.Offset, f.Length)
		}
	}
}

func dump(b *strings.Builder, caption string, content []byte, args ...any) {
	fmt.Fprintf(b, caption+":\n\n```hex\n", args...)
	for len(content) > 0 {
		line := content[:min(32, len(content))]
		content = content[len(line):]
		fmt.Fprintf(b, "%x\n", line)
	}
	b.WriteString("```\n\n")
}

// fromExample is the inverse of example.
func fromExample(t *testing.T, s string) []byte {
	t.Helper()
	var out []byte
	for i, block := range strings.Split(s, "```") {
		if i%2 == 0 {
			continue // between blocks
		}
		kind, content, _ := strings.Cut(block, "\n")
		switch kind {
		case "hex":
			raw, err := hex.DecodeString(strings.ReplaceAll(content, "\n", ""))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, raw...)
		case "json":
			out = append(out, strings.TrimSuffix(content, "\n")...)
		}
	}
	return out
}

// The page names every limit with its value.
func TestLimitsInTheDescription(t *testing.T) {
	doc := string(readFile(t, formatDoc))
	for what, limit := range map[string]int{
		"Envelope, bytes": MaxEnvelope, "Images": MaxImages, "Recipes of one image": MaxRecipes,
		"Entries of `compatible`": MaxCompatible, "Chunks of one image": MaxChunks,
		"Smallest chunk size, bytes": MinChunkSize, "Largest chunk size, bytes": MaxChunkSize, "Longest prefix, bytes": MaxPrefix,
		"Frames of one image": MaxFrames, "Shortest frame, bytes": MinFrame, "Longest frame, bytes": MaxFrame,
		"Class, characters": maxClass, "Label, characters": maxLabel,
		"Annotations": maxAnnotations, "Annotation value, bytes": maxAnnotationValue,
		"Recipients": MaxRecipients, "Documents": MaxDocuments, "Document, bytes": MaxDocument, "Statement of provenance, bytes": provenance.MaxSize,
	} {
		if row := fmt.Sprintf("| %s | %d |", what, limit); !strings.Contains(doc, row) {
			t.Errorf("%s lacks the row %q", formatDoc, row)
		}
	}
}
