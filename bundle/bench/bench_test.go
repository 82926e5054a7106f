// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

// sample is a report with all there can be in one.
func sample() *report {
	return &report{
		Run: "now", Machine: "a machine",
		Pairs: []summary{{Name: "p", Title: "Root & all", Size: 448 << 20, Upgraded: 24, Results: []result{
			{Label: "xdelta3 -9 -S djw", Kind: known, Bytes: 5_928_231, usage: usage{9.4, 9.1, 1_553_784 << 10}, Apply: &usage{2, 1, 700e6}, Run: "now"},
			{Label: "xdelta3 -9 -S lzma", Kind: known, Bytes: 5_383_690, usage: usage{8, 8, 1_553_784 << 10}, Run: "before"},
			{Label: "updaterd, delta", Kind: known, Ours: true, Bytes: 3_713_701, usage: usage{20, 38, 600e6}, Apply: &usage{1, 1, 30e6}, Run: "now"},
			{Label: "zchunk", Kind: unknown, Bytes: 30_700_000, usage: usage{40, 40, 100e6}, Run: "now"},
			{Label: "updaterd, full recipe", Kind: full, Ours: true, Bytes: 110_000_000, usage: usage{20, 38, 600e6}, Run: "now"},
		}}},
		Install: installTable{Run: "before", Pair: "Root & all", Notes: []string{"Something was not measured: no reason."}, Rows: []install{
			{Label: "dd", Size: 448 << 20, Fast: usage{2, 0.5, 3e6}, Slow: &usage{12, 0.5, 3e6}},
			{Label: "updaterd", Size: 448 << 20, Fast: usage{3, 2, 25e6}, Slow: &usage{12.6, 2, 25e6}},
		}},
	}
}

func TestGolden(t *testing.T) {
	for name, got := range map[string]string{
		"table.txt": sample().text(), "table.md": sample().markdown(), "picture.svg": picture(sample()),
	} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (go test -update rewrites it): %s", name, diff)
		}
	}
}

func TestPictureIsXML(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(picture(sample())))
	rects := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			rects++
		}
	}
	// The ground, and a bar for each row that is not a whole image.
	if rects != 5 {
		t.Errorf("the picture has %d rectangles, want 5", rects)
	}
}

func TestReferenceIsTheBestPeer(t *testing.T) {
	s := sample().Pairs[0]
	if got := reference(s.of(known)); got != 5_383_690 {
		t.Errorf("reference = %d, want that of xdelta3 lzma", got)
	}
	if got := ratio(3_713_701, reference(s.of(known))); got != "0.69" {
		t.Errorf("ratio = %s, want 0.69", got)
	}
	if got := ratio(1, reference(s.of(full))); got != "-" {
		t.Errorf("ratio without a peer = %s, want -", got)
	}
}

func TestMissingBlocks(t *testing.T) {
	dir := t.TempDir()
	noise := make([]byte, 80*blockSize)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	block := func(i int) []byte { return noise[i*blockSize : (i+1)*blockSize] }
	write := func(name string, parts ...[]byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.Join(parts, nil), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old := write("old", noise[:64*blockSize])
	// Moved, zero, new, the same new one again, and a short new one at the end: two are to be fetched.
	moved := write("moved", noise[:32*blockSize], block(40), make([]byte, blockSize), block(70), block(70), []byte("end"))
	got, err := missingBlocks(old, moved)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(37 * digestSize); got.Index != want || got.Raw != blockSize+3 {
		t.Errorf("missingBlocks = %+v, want an index of %d and %d bytes of blocks", got, want, blockSize+3)
	}
	// Only the second squashfs block has anything new in it: three blocks of noise, of which one twice.
	if got.Squashed < 2*blockSize || got.Squashed > 5*blockSize {
		t.Errorf("missingBlocks finds %d bytes of squashfs blocks", got.Squashed)
	}
	if none, err := missingBlocks(old, old); err != nil || none.Raw+none.Squashed != 0 {
		t.Errorf("missingBlocks of the same = %+v, %v", none, err)
	}
}

func TestReadsWhatToolsSay(t *testing.T) {
	if n, err := zchunkDownload("Would download 212522 of 213000 bytes\nMatched 16 of 78 chunks\n"); n != 212522 || err != nil {
		t.Errorf("zchunkDownload = %d, %v", n, err)
	}
	if _, err := zchunkDownload("nothing"); err == nil {
		t.Error("zchunkDownload of nothing succeeds")
	}
	info := `{"envelope_size": 100, "images": [{"recipes": [{"kind": "delta", "download": 7}, {"kind": "full", "download": 50}]}]}`
	_, got, err := downloads([]byte(info))
	if want := map[string]int64{"delta": 107, "full": 150}; err != nil || !cmp.Equal(got, want) {
		t.Errorf("downloads = %v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"", `{"images": []}`} {
		if _, got, err := downloads([]byte(bad)); err == nil {
			t.Errorf("downloads of %q = %v; want an error", bad, got)
		}
	}
	if n := highWater([]byte("Name:\tx\nVmHWM:\t   1234 kB\nVmRSS:\t 1 kB\n")); n != 1234<<10 {
		t.Errorf("highWater = %d", n)
	}
	if n := highWater([]byte("VmRSS:\t 1 kB\n")); n != 0 {
		t.Errorf("highWater of a kernel thread = %d", n)
	}
	if s, err := cpuSeconds("12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20"); s != 2 || err != nil {
		t.Errorf("cpuSeconds = %v, %v; want 2", s, err)
	}
	if _, err := cpuSeconds("12 (a) S 1"); err == nil {
		t.Error("cpuSeconds of a short line succeeds")
	}
	status := "Package: a\nStatus: x\nVersion: 1\n\nPackage: b\nVersion: 2~x\n"
	if got := packageVersions(status); got != "a 1\nb 2~x\n" {
		t.Errorf("packageVersions = %q", got)
	}
}

func TestUpgraded(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"old": "a 1\nb 1\nc 1\n", "new": "a 1\nb 2\nd 1\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := upgraded(filepath.Join(dir, "old"), filepath.Join(dir, "new")); n != 2 || err != nil {
		t.Errorf("upgraded = %d, %v; want 2", n, err)
	}
}

func TestPairsDiffer(t *testing.T) {
	names := map[string]bool{}
	for _, p := range pairs("amd64") {
		if names[p.Name] {
			t.Errorf("two pairs are called %s", p.Name)
		}
		names[p.Name] = true
		if p.old.name == p.new.name || cmp.Equal(p.old.suites, p.new.suites) && cmp.Equal(p.old.only, p.new.only) {
			t.Errorf("pair %s: old and new are made in the same way", p.Name)
		}
	}
}

func TestChoose(t *testing.T) {
	list := []string{"a", "b", "c"}
	name := func(s string) string { return s }
	for names, want := range map[string][]string{"": list, "c,a": {"a", "c"}, "b": {"b"}, "x": nil, "a,a": nil} {
		got, err := choose(list, name, names)
		if !cmp.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("choose %q = %v, %v; want %v", names, got, err, want)
		}
	}
}

func TestDownloaded(t *testing.T) {
	got, err := downloaded([]byte("recipe: blocks (why)\ndownload: 18664321 bytes, 0 of them for the fall-back\nout: 3 bytes\n"))
	if err != nil || got != 18664321 {
		t.Errorf("downloaded = %d, %v; want 18664321", got, err)
	}
	for _, bad := range []string{"", "download: many bytes\n", "chunks: 3\n"} {
		if got, err := downloaded([]byte(bad)); err == nil {
			t.Errorf("downloaded of %q = %d; want an error", bad, got)
		}
	}
}

func TestMeasure(t *testing.T) {
	out, u, err := measure(t.Context(), t.TempDir(), "sh", "-c", "printf said; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
	if err != nil || string(out) != "said" {
		t.Fatalf("measure = %q, %v", out, err)
	}
	if u.Seconds <= 0 || u.CPU <= 0 || u.CPU > u.Seconds+1 {
		t.Errorf("usage = %+v", u)
	}
	if _, _, err := measure(t.Context(), t.TempDir(), "sh", "-c", "echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("measure of a failure = %v, want what it said", err)
	}
	if _, _, err := measure(t.Context(), t.TempDir(), "no-such-tool"); err == nil || !strings.Contains(err.Error(), ".ci/setup bench") {
		t.Errorf("measure of a missing tool = %v, want the next step", err)
	}
}

func TestResultsAreKept(t *testing.T) {
	s := store{dir: filepath.Join(t.TempDir(), "results")}
	calls := 0
	measuring := func() ([]result, error) {
		calls++
		return []result{{Label: "x", Bytes: int64(calls)}}, nil
	}
	broken := errors.New("broken")
	if _, err := once(s, "k", func() ([]result, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("once = %v, want what measuring said", err)
	}
	for i, step := range []struct {
		store store
		want  int64
	}{{s, 1}, {s, 1}, {store{dir: s.dir, fresh: true}, 2}, {s, 2}} {
		got, err := once(step.store, "k", measuring)
		if want := []result{{Label: "x", Bytes: step.want}}; err != nil || !cmp.Equal(got, want, cmp.AllowUnexported(result{})) {
			t.Errorf("step %d: once = %+v, %v; want %+v", i, got, err, want)
		}
	}
}

func TestBadKeptResult(t *testing.T) {
	s := store{dir: t.TempDir()}
	if err := os.WriteFile(s.path("k"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := once[[]result](s, "k", nil); err == nil || !strings.Contains(err.Error(), s.path("k")) {
		t.Errorf("once = %v, want which file to remove", err)
	}
	if _, found, err := kept[[]result](s, "other"); found || err != nil {
		t.Errorf("kept of what is not there = %v, %v", found, err)
	}
}

func TestSame(t *testing.T) {
	dir := t.TempDir()
	long := bytes.Repeat([]byte("0123456789abcdef"), 8192) // a multiple of the buffer
	for name, data := range map[string][]byte{"a": long, "b": long, "c": append(bytes.Clone(long), 'x'), "d": append(long[:len(long)-1:len(long)-1], 'x'), "e": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for other, want := range map[string]bool{"b": true, "c": false, "d": false, "e": false} {
		if got, err := same(filepath.Join(dir, "a"), filepath.Join(dir, other)); got != want || err != nil {
			t.Errorf("same(a, %s) = %v, %v; want %v", other, got, err, want)
		}
	}
}

func TestReplaceTable(t *testing.T) {
	got, err := replaceTable("before\n"+beginTable+"old\n"+endTable+"after\n", "new\n")
	if want := "before\n" + beginTable + "new\n" + endTable + "after\n"; got != want || err != nil {
		t.Errorf("replaceTable = %q, %v; want %q", got, err, want)
	}
	if _, err := replaceTable("nothing", "new\n"); err == nil {
		t.Error("replaceTable without a place succeeds")
	}
}
