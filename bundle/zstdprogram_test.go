// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What the program zstd makes is read by the decoder that every device has.
func TestZstdProgram(t *testing.T) {
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Fatalf("%v: .ci/setup installs it", err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	// These would change the bytes, if they were heeded.
	t.Setenv("ZSTD_CLEVEL", "1")
	t.Setenv("ZSTD_NBTHREADS", "3")
	dir := t.TempDir()
	spec := testSpec(t, dir)
	spec.Annotations = map[string]string{"notes": "hello"}
	spec.Compressor = CompressorZstd
	spec.ChunkSize = 64 << 10
	spec.Prefix = 100_000
	// A chunk that begins like a trained dictionary is the prefix of the next one.
	image := slices.Concat(text(200<<10, 1), noise(100<<10, 2), make([]byte, 300<<10), text(77_777, 3), noise(100<<10, 2))
	copy(image[2*spec.ChunkSize:], "\x37\xa4\x30\xec")
	spec.Images[0].Path = writeFile(t, dir, "image", image)
	build := func(name string, workers int) *File {
		spec.Workers = workers
		out := filepath.Join(dir, name)
		if err := Build(context.Background(), out, spec); err != nil {
			t.Fatal(err)
		}
		return openTest(t, out)
	}
	f := build("one", 1)
	if _, err := f.Check(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(dir, "made")
	if _, err := f.Apply(context.Background(), "rootfs", nil, made, nil); err != nil || !bytes.Equal(readFile(t, made), image) {
		t.Errorf("Apply: %v, or another image", err)
	}
	if a := f.Manifest.Annotations; len(a) != 2 || a["notes"] != "hello" || !strings.HasPrefix(a["compressor"], "zstd 1.") || !strings.HasSuffix(a["compressor"], ", level 19") {
		t.Errorf("annotations = %v", a)
	}
	if len(spec.Annotations) != 1 {
		t.Errorf("the caller's annotations are now %v", spec.Annotations)
	}
	img := f.Manifest.Image("rootfs")
	entries, err := f.Table(img, img.Full())
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[Encoding]int)
	for _, e := range entries {
		kinds[e.Kind]++
	}
	for _, k := range []Encoding{Zero, Raw, Zstd, Prefixed} {
		if kinds[k] == 0 {
			t.Errorf("no chunk is %v, so this test shows less than it should", k)
		}
	}
	if g := build("three", 3); g.Digest != f.Digest {
		t.Error("the number of workers changes the bundle")
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left behind, %v", left, err)
	}
}

func TestZstdProgramThatIsNone(t *testing.T) {
	script := func(t *testing.T, body string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "zstd"), []byte("#!/bin/sh\n"+body), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir)
	}
	for name, tc := range map[string]struct {
		body string // "" = there is no such program
		edit func(s *Spec)
		want string
	}{
		"missing":        {"", nil, "install zstd"},
		"other program":  {"echo hello", nil, "this is not zstd"},
		"fails":          {"echo no memory >&2; exit 1", nil, "no memory"},
		"wrong frames":   {"if [ $1 = --version ]; then echo v1.5.4; else echo abc; fi", nil, "does not give it back"},
		"key is taken":   {"echo v1.5.4", func(s *Spec) { s.Annotations = map[string]string{"compressor": "me"} }, "choose another key"},
		"unknown":        {"echo v1.5.4", func(s *Spec) { s.Compressor = "xz" }, "unknown compressor"},
		"is interrupted": {"if [ $1 = --version ]; then echo v1.5.4; else while :; do :; done; fi", nil, "canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			script(t, tc.body)
			if tc.body == "" {
				t.Setenv("PATH", t.TempDir())
			}
			dir := t.TempDir()
			spec := testSpec(t, dir)
			spec.Compressor = CompressorZstd
			if tc.edit != nil {
				tc.edit(&spec)
			}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if tc.want == "canceled" {
				spec.Progress = func(int64, int64) { cancel() }
				spec.Images[0].Path = writeFile(t, dir, "zeros first", append(make([]byte, testChunk), text(testChunk, 1)...))
				spec.Images[0].Deltas = nil
			}
			err := Build(ctx, filepath.Join(dir, "out"), spec)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Build: %v; want %q", err, tc.want)
			}
			for _, e := range notForABuilder {
				if errors.Is(err, e) {
					t.Errorf("Build: %v, which is %v: there is no bundle that could be bad", err, e)
				}
			}
			checkNoLitter(t, dir, "v1", "v2", "boot", "zeros first")
		})
	}
}

var notForABuilder = []error{ErrMalformed, ErrEncoded, ErrContent, ErrSource}
