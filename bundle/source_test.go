// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/updaterd/updaterd/sign"
)

// olderBundle builds a bundle of testImage 1, signed by alice.
func olderBundle(t testing.TB, dir string) string {
	t.Helper()
	spec := testSpec(t, dir)
	spec.Images = []ImageSpec{{Class: "rootfs", Path: spec.Images[0].Deltas[0].Path}}
	out := filepath.Join(dir, "old.upb")
	if err := Build(context.Background(), out, spec); err != nil {
		t.Fatal(err)
	}
	return out
}

// A delta from an older bundle is the one from the image in it.
func TestDeltaFromBundle(t *testing.T) {
	dir := t.TempDir()
	spec := testSpec(t, dir)
	want := readFile(t, buildTest(t, dir))
	old := olderBundle(t, dir)
	spec.Images[0].Deltas = []SourceSpec{{Path: old}}
	spec.Policy = testPolicy(t, "alice", 1)
	out := buildWatched(t, dir, spec)
	if !bytes.Equal(readFile(t, out), want) {
		t.Error("the bundle differs from the one made from the image")
	}
	checkNoLitter(t, dir, "v1", "v2", "boot", "test.upb", "old.upb")
}

// Two sources that are one image give one recipe, however they are given.
func TestSameSourceTwice(t *testing.T) {
	dir := t.TempDir()
	spec := testSpec(t, dir)
	v1 := spec.Images[0].Deltas[0]
	other := SourceSpec{Path: writeFile(t, dir, "v0", testImage("20251201", 3))}
	spec.Images[0].Deltas = []SourceSpec{{Path: olderBundle(t, dir)}, other, v1, v1}
	spec.Policy = testPolicy(t, "alice", 1)
	var notes []string
	spec.Note = func(s string) { notes = append(notes, s) }
	var last, total int64
	spec.Progress = func(done, all int64) { last, total = done, all }
	out := filepath.Join(dir, "test.upb")
	if err := Build(context.Background(), out, spec); err != nil {
		t.Fatal(err)
	}
	img := openTest(t, out).Manifest.Image("rootfs")
	if n := len(img.Recipes); n != 3 || img.Recipes[0].Source.BuildID != "20260101" || img.Recipes[1].Source.BuildID != "20251201" {
		t.Errorf("%d recipes: %+v", n, img.Recipes)
	}
	if len(notes) != 2 || !strings.Contains(notes[0], "v1 is the same image as "+filepath.Join(dir, "old.upb")) {
		t.Errorf("notes = %q", notes)
	}
	if last != total {
		t.Errorf("progress ends at %d of %d", last, total)
	}
}

func TestBundleAsSourceIsRefused(t *testing.T) {
	flipAt := func(at int) func(string, *Spec) {
		return func(old string, _ *Spec) {
			b := readFile(t, old)
			b[(at+len(b))%len(b)] ^= 1
			writeFile(t, filepath.Dir(old), filepath.Base(old), b)
		}
	}
	for name, tc := range map[string]struct {
		edit func(old string, s *Spec)
		want error
		text string
	}{
		"no keyring":       {func(_ string, s *Spec) { s.Policy = nil }, nil, "no keyring"},
		"somebody's":       {func(_ string, s *Spec) { s.Policy = testPolicy(t, "bob", 1) }, sign.ErrUntrusted, "old.upb"},
		"too few keys":     {func(_ string, s *Spec) { s.Policy = testPolicy(t, "alice", 2) }, sign.ErrUntrusted, "old.upb"},
		"another class":    {func(_ string, s *Spec) { s.Images[0].Class = "data" }, nil, `no image of class "data" in it; it has rootfs`},
		"touched head":     {flipAt(20), sign.ErrMalformed, "old.upb"},
		"cut off":          {func(old string, _ *Spec) { writeFile(t, filepath.Dir(old), "old.upb", readFile(t, old)[:2000]) }, ErrTruncated, "old.upb"},
		"touched payload":  {flipAt(-5), ErrEncoded, "delta from"},
		"output is source": {func(old string, s *Spec) { s.Images[0].Deltas[0].Path = filepath.Join(filepath.Dir(old), "test.upb") }, nil, "is an input too"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			spec := testSpec(t, dir)
			old := olderBundle(t, dir)
			spec.Images[0].Deltas = []SourceSpec{{Path: old}}
			spec.Policy = testPolicy(t, "alice", 1)
			out := writeFile(t, dir, "test.upb", []byte("what was here before"))
			tc.edit(old, &spec)
			err := Build(context.Background(), out, spec)
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("Build: %v; want %v, %q", err, tc.want, tc.text)
			}
			if string(readFile(t, out)) != "what was here before" {
				t.Error("a failed build touched its output")
			}
			checkNoLitter(t, dir, "v1", "v2", "boot", "test.upb", "old.upb")
		})
	}
}

// What is zero in the image is a hole in the temporary file.
func TestSparse(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := make([]byte, 8<<20+123)
	copy(want[5000:], "near the start")
	copy(want[4<<20-3:], "across a block")
	copy(want[len(want)-4:], "end")
	if err := f.Truncate(int64(len(want))); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(want); at += 1 << 20 {
		b := want[at:min(at+1<<20, len(want))]
		if n, err := (sparse{f}).WriteAt(b, int64(at)); n != len(b) || err != nil {
			t.Fatalf("WriteAt: %d, %v", n, err)
		}
	}
	if !bytes.Equal(readFile(t, f.Name()), want) {
		t.Error("the file has other content")
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Sys().(*syscall.Stat_t).Blocks * 512; got > 64<<10 {
		t.Errorf("the file takes %d bytes of disk", got)
	}
}

// Interrupted anywhere, also while the source is made, nothing stays.
func TestBuildFromBundleCanBeInterrupted(t *testing.T) {
	dir := t.TempDir()
	old := olderBundle(t, dir)
	for after := range 24 {
		spec := testSpec(t, dir)
		spec.Images[0].Deltas = []SourceSpec{{Path: old}}
		spec.Policy = testPolicy(t, "alice", 1)
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
		checkNoLitter(t, dir, "v1", "v2", "boot", "old.upb")
	}
}

// meeting is a chunkWorker that goes on only when all workers are at work.
type meeting struct {
	arrived *sync.WaitGroup
	once    sync.Once
}

func (m *meeting) close() {}

func (m *meeting) encode(job *chunkJob) (encodedChunk, error) {
	m.once.Do(m.arrived.Done)
	m.arrived.Wait()
	return encodedChunk{kind: Raw, bytes: job.chunk}, nil
}

// As many chunks are encoded at once as there are cores.
func TestBuildUsesAllCores(t *testing.T) {
	b := &builder{}
	if err := b.open(filepath.Join(t.TempDir(), "out")); err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if b.Workers != runtime.GOMAXPROCS(0) {
		t.Errorf("%d workers by default; want %d", b.Workers, runtime.GOMAXPROCS(0))
	}
	const workers = 7
	path := writeFile(t, t.TempDir(), "image", noise(40*testChunk, 1))
	in, err := openInput(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var arrived sync.WaitGroup
	arrived.Add(workers)
	p := &pipeline{
		image: in, chunkSize: testChunk, workers: workers,
		newWorker: func() (chunkWorker, error) { return &meeting{arrived: &arrived}, nil },
		emit:      func(int, int, encodedChunk) error { return nil },
	}
	done := make(chan error, 1)
	go func() { done <- p.run(context.Background()) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("%d workers are never at work at once", workers)
	}
}
