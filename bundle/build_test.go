// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bundle/seal"
	"github.com/updaterd/updaterd/sign"
	"pgregory.net/rapid"
)

// buildWatched builds a bundle of which there is nothing to note, and sees that
// its progress goes forward, to the end.
func buildWatched(t *testing.T, dir string, spec Spec) string {
	t.Helper()
	var last, total int64
	spec.Progress = func(done, all int64) {
		if done < last || all < done {
			t.Errorf("progress goes from %d to %d of %d", last, done, all)
		}
		last, total = done, all
	}
	spec.Note = func(s string) { t.Errorf("note: %s", s) }
	out := filepath.Join(dir, "test.upb")
	if err := Build(context.Background(), out, spec); err != nil {
		t.Fatal(err)
	}
	if last != total || total == 0 {
		t.Errorf("progress ends at %d of %d", last, total)
	}
	return out
}

func TestBuild(t *testing.T) {
	dir := t.TempDir()
	spec := testSpec(t, dir)
	out := buildWatched(t, dir, spec)
	f := openTest(t, out)
	m := f.Manifest
	if p := m.Image("rootfs").Full().Prefix; p != DefaultPrefix {
		t.Errorf("prefix of %d bytes", p)
	}
	if p := m.Image("bootloader").Full().Prefix; p != 0 {
		t.Errorf("prefix of %d bytes, and no chunk has one", p)
	}
	if m.Sequence != 7 || m.Floor != 5 || !m.Created.Equal(testTime) || m.Version != "1.2.0" || len(m.Images) != 2 {
		t.Errorf("manifest = %+v", m)
	}
	rootfs := m.Image("rootfs")
	v1, v2 := testImage("20260101", 1), testImage("20260131", 2)
	if rootfs.BuildID != "20260131" || rootfs.Digest != Sum(v2) || rootfs.Size != int64(len(v2)) {
		t.Errorf("rootfs = %+v", rootfs)
	}
	if want := (Source{Digest: Sum(v1), Size: int64(len(v1)), BuildID: "20260101"}); *rootfs.Recipes[0].Source != want {
		t.Errorf("source = %v; want %v", rootfs.Recipes[0].Source, want)
	}
	if small, full := rootfs.Recipes[0].Download(rootfs), rootfs.Full().Download(rootfs); small > full/10 {
		t.Errorf("the delta costs %d bytes, the full recipe %d", small, full)
	}
	if id := m.Image("bootloader").BuildID; id != "" {
		t.Errorf("the bootloader has build id %q", id)
	}
	if m.Image("kernel") != nil {
		t.Error("there is an image that was not asked for")
	}
	kinds := make(map[Encoding]int)
	for k := range rootfs.Recipes {
		entries, err := f.Table(rootfs, &rootfs.Recipes[k])
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			kinds[e.Kind]++
		}
	}
	for _, k := range []Encoding{Zero, Raw, Zstd, Patch, Prefixed} {
		if kinds[k] == 0 {
			t.Errorf("no chunk is %v, so this test shows less than it should", k)
		}
	}
	checkNoLitter(t, dir, "v1", "v2", "boot", "test.upb")
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode of the bundle: %v, %v", info.Mode(), err)
	}
}

func checkNoLitter(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(want, e.Name()) {
			t.Errorf("%s is left behind", e.Name())
		}
	}
}

// The same input gives the same bytes, whoever signs and however many cores work.
func TestBuildIsDeterministic(t *testing.T) {
	dir := t.TempDir()
	spec := testSpec(t, dir)
	spec.Blocks = true
	// Large enough for every goroutine to use its encoder more than once.
	old := append(text(600<<10, 1), noise(300<<10, 1)...)
	now := append(text(600<<10, 1), noise(330<<10, 1)...)
	for i := 0; i < len(now); i += 5000 {
		now[i]++
	}
	spec.Images = append(spec.Images, ImageSpec{
		Class: "large", Path: writeFile(t, dir, "large", now),
		Deltas: []SourceSpec{{Path: writeFile(t, dir, "large.old", old), BuildID: "old"}},
	})
	build := func(name string, workers int, key string) (manifest, payload []byte) {
		spec.Workers = workers
		signer, ring := testKey(t, key)
		spec.Signers = []sign.Signer{signer}
		out := filepath.Join(dir, name)
		if err := Build(context.Background(), out, spec); err != nil {
			t.Fatal(err)
		}
		f, err := Open(out, ring.Policy(1))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		manifest, err = f.Manifest.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return manifest, readFile(t, out)[f.PayloadOffset:]
	}
	manifest, payload := build("one", 1, "alice")
	for i := range 3 {
		m, p := build("again", 3+i, "bob")
		if !bytes.Equal(manifest, m) || !bytes.Equal(payload, p) {
			t.Fatalf("build %d differs", i)
		}
	}
}

func TestDeltaThatDoesNotPay(t *testing.T) {
	dir := t.TempDir()
	spec := testSpec(t, dir)
	image := noise(50_000, 9) // a patch cannot compress it better than the full recipe
	spec.Images[0].Path = writeFile(t, dir, "new", image)
	spec.Images[0].Deltas = []SourceSpec{
		{Path: writeFile(t, dir, "old", append(noise(100, 10), image[100:]...))},
		{Path: writeFile(t, dir, "unrelated", noise(50_000, 8))},
	}
	var notes []string
	spec.Note = func(s string) { notes = append(notes, s) }
	out := filepath.Join(dir, "test.upb")
	if err := Build(context.Background(), out, spec); err != nil {
		t.Fatal(err)
	}
	if n := len(openTest(t, out).Manifest.Images[0].Recipes); n != 2 {
		t.Errorf("%d recipes; want the good delta and the full one", n)
	}
	if all := strings.Join(notes, "\n"); !strings.Contains(all, "unrelated is left out") {
		t.Errorf("notes = %q", all)
	}
}

func TestBuildNotesOddSources(t *testing.T) {
	dir := t.TempDir()
	spec := testSpec(t, dir)
	spec.Images[0].BuildID = "1"
	spec.Images[0].Deltas[0].BuildID = "1"
	spec.Images[0].Deltas = append(spec.Images[0].Deltas, SourceSpec{Path: spec.Images[0].Path})
	var notes []string
	spec.Note = func(s string) { notes = append(notes, s) }
	if err := Build(context.Background(), filepath.Join(dir, "test.upb"), spec); err != nil {
		t.Fatal(err)
	}
	all := strings.Join(notes, "\n")
	for _, want := range []string{"has the same build id 1", "is the new image itself"} {
		if !strings.Contains(all, want) {
			t.Errorf("notes = %q; want %q", all, want)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(dir string, s *Spec)
		want string
	}{
		"no key":            {func(_ string, s *Spec) { s.Signers = nil }, "no key"},
		"a key for none":    {func(_ string, s *Spec) { s.Unsigned = true }, "is to be unsigned"},
		"no image":          {func(_ string, s *Spec) { s.Images = nil }, "0 images"},
		"no such image":     {func(dir string, s *Spec) { s.Images[0].Path = dir + "/none" }, "none"},
		"empty image":       {func(dir string, s *Spec) { s.Images[0].Path = dir + "/empty" }, "empty"},
		"image is a folder": {func(dir string, s *Spec) { s.Images[0].Path = dir }, "a directory"},
		"no such source":    {func(dir string, s *Spec) { s.Images[0].Deltas[0].Path = dir + "/none" }, "none"},
		"empty source":      {func(dir string, s *Spec) { s.Images[0].Deltas[0].Path = dir + "/empty" }, "empty"},
		"class twice":       {func(_ string, s *Spec) { s.Images[1].Class = "rootfs" }, "two images"},
		"odd chunk size":    {func(_ string, s *Spec) { s.ChunkSize = 5000 }, "chunk size"},
		"negative chunks":   {func(_ string, s *Spec) { s.ChunkSize = -4096 }, "chunk size"},
		"long prefix":       {func(_ string, s *Spec) { s.Prefix = MaxPrefix + 1 }, "prefix"},
		"tiny chunks":       {func(_ string, s *Spec) { s.ChunkSize = 1 }, "chunk size"},
		"odd version":       {func(_ string, s *Spec) { s.Version = "1/2" }, "version"},
		"odd build id":      {func(_ string, s *Spec) { s.Images[0].BuildID = "a b" }, "build id"},
		"floor too high":    {func(_ string, s *Spec) { s.Floor = 8 }, "floor"},
		"output is input":   {func(dir string, s *Spec) { s.Images[0].Path = dir + "/test.upb" }, "is an input too"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, dir, "empty", nil)
			out := writeFile(t, dir, "test.upb", []byte("what was here before"))
			spec := testSpec(t, dir)
			tc.edit(dir, &spec)
			if err := Build(context.Background(), out, spec); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Build: %v; want %q", err, tc.want)
			}
			if b := readFile(t, out); string(b) != "what was here before" {
				t.Error("a failed build touched its output")
			}
			checkNoLitter(t, dir, "empty", "v1", "v2", "boot", "test.upb")
		})
	}
}

func TestBuildCanBeInterrupted(t *testing.T) {
	dir := t.TempDir()
	for after := range 12 {
		spec := testSpec(t, dir)
		ctx, cancel := context.WithCancel(context.Background())
		n := 0
		spec.Progress = func(int64, int64) {
			if n++; n > after {
				cancel()
			}
		}
		if err := Build(ctx, filepath.Join(dir, "test.upb"), spec); !errors.Is(err, context.Canceled) {
			t.Errorf("Build stopped after %d steps: %v; want context.Canceled", after, err)
		}
		cancel()
		checkNoLitter(t, dir, "v1", "v2", "boot")
	}
}

// An image that is written to while it is read makes no bundle.
func TestImageThatChanges(t *testing.T) {
	dir := t.TempDir()
	spec := testSpec(t, dir)
	spec.Workers = 1
	seen := int64(0)
	spec.Progress = func(done, _ int64) {
		size := int64(len(testImage("", 0)))
		if seen < size && done >= size { // between the full recipe and the delta
			b := readFile(t, spec.Images[0].Path)
			b[len(b)-1] ^= 1
			if err := os.WriteFile(spec.Images[0].Path, b, 0o600); err != nil {
				t.Error(err)
			}
		}
		seen = done
	}
	err := Build(context.Background(), filepath.Join(dir, "test.upb"), spec)
	if !errors.Is(err, errChanged) {
		t.Errorf("Build: %v; want %v", err, errChanged)
	}
}

// Whatever the images are, each recipe gives the image back, from an untouched
// source without the full recipe's help.
func TestAnyImageComesBack(t *testing.T) {
	dir := t.TempDir()
	signer, ring := testKey(t, "alice")
	id := newIdentity(t)
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.Custom(func(t *rapid.T) []byte {
			n := rapid.IntRange(1, 3*testChunk).Draw(t, "length")
			seed := uint64(rapid.IntRange(0, 3).Draw(t, "seed"))
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				return make([]byte, n)
			case 1:
				return noise(n, seed)
			}
			return text(n, seed)
		})
		pieces := rapid.SliceOfN(piece, 1, 5)
		old, now := slices.Concat(pieces.Draw(t, "old")...), slices.Concat(pieces.Draw(t, "new")...)
		if rapid.Bool().Draw(t, "related") {
			now = append(bytes.Clone(now), old...)
		}
		put := func(name string, b []byte) string {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		spec := Spec{
			Compatible: []string{"demo"}, Version: "1", Created: testTime, ChunkSize: testChunk, Signers: []sign.Signer{signer},
			Images: []ImageSpec{{Class: "rootfs", Path: put("new", now), Deltas: []SourceSpec{{Path: put("old", old)}}}},
			Blocks: rapid.Bool().Draw(t, "blocks"),
		}
		if rapid.Bool().Draw(t, "encrypted") {
			spec.Recipients = []*seal.Recipient{id.Recipient()}
		}
		out := filepath.Join(dir, "b")
		if err := Build(context.Background(), out, spec); err != nil {
			t.Fatal(err)
		}
		f, err := Open(out, ring.Policy(1))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Manifest.Unlock(id); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Check(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
		for _, source := range []string{"", filepath.Join(dir, "old")} {
			made := filepath.Join(dir, "made")
			a, err := f.Apply(context.Background(), "rootfs", given(source), made, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(made); err != nil || !bytes.Equal(got, now) {
				t.Fatalf("source %q gives another image (%v)", source, err)
			}
			img := &f.Manifest.Images[0]
			r := img.Recipes[a.Recipe]
			if a.Fallback != 0 || a.Fetched != r.Download(img) && r.Kind != KindBlocks {
				t.Fatalf("source %q: %+v", source, a)
			}
		}
	})
}

func TestBuildIDs(t *testing.T) {
	block := func(s string) []byte { return append([]byte(s), make([]byte, scanStep-len(s)%scanStep)...) }
	release := "NAME=x\nID=demo\nBUILD_ID=17\n"
	for name, tc := range map[string]struct {
		image []byte
		want  string
	}{
		"one":                      {append(noise(5*scanStep, 1), block(release)...), "17"},
		"double quotes":            {block("ID=demo\nBUILD_ID=\"17\"\n"), "17"},
		"single quotes":            {block("ID=demo\nBUILD_ID='17'\n"), "17"},
		"comments and empty lines": {block("# os\n\nID=demo\n\n# build\nBUILD_ID=17\n"), "17"},
		"no newline at the end":    {block("ID=demo\nBUILD_ID=17"), "17"},
		"file ends the image":      {append(make([]byte, scanStep), release...), "17"},
		"text goes on with noise":  {append([]byte(release), noise(900, 2)...), "17"},
		"the same twice":           {append(block(release), block(release)...), "17"},
		"two that differ":          {append(block(release), block("ID=demo\nBUILD_ID=18\n")...), ""},
		"not at a block":           {append(make([]byte, 100), release...), ""},
		"no ID":                    {block("NAME=x\nBUILD_ID=17\n"), ""},
		"no BUILD_ID":              {block("NAME=x\nID=demo\n"), ""},
		"empty":                    {block("ID=demo\nBUILD_ID=\n"), ""},
		"not a label":              {block("ID=demo\nBUILD_ID=\"a b\"\n"), ""},
		"lower-case keys":          {block("id=demo\nbuild_id=17\n"), ""},
		"indented":                 {block(" ID=demo\n BUILD_ID=17\n"), ""},
		"after something else":     {block("#!/bin/sh\necho\nID=demo\nBUILD_ID=17\n"), ""},
		"cut off by the window":    {[]byte("ID=demo\n#" + strings.Repeat("x", scanWindow-20) + "\nBUILD_ID=17\n"), ""},
		"zeros":                    {make([]byte, 3*scanStep), ""},
	} {
		got, err := Identify(context.Background(), bytes.NewReader(tc.image), int64(len(tc.image)))
		if err != nil || got.BuildID != tc.want || got.Digest != Sum(tc.image) {
			t.Errorf("%s: Identify = %v, %v; want build id %q", name, got, err, tc.want)
		}
		// However the image is cut into writes.
		for _, n := range []int{1, 1000, scanStep, 5000} {
			var ids buildIDs
			for b := range slices.Chunk(tc.image, n) {
				ids.Write(b)
			}
			if got := ids.result(); got != tc.want {
				t.Errorf("%s in writes of %d: %q; want %q", name, n, got, tc.want)
			}
		}
	}
	if _, err := Identify(context.Background(), bytes.NewReader(nil), 0); err == nil {
		t.Error("Identify takes an empty image")
	}
	if _, err := Identify(context.Background(), bytes.NewReader(nil), 5); err == nil {
		t.Error("Identify takes an image that ends early")
	}
}
