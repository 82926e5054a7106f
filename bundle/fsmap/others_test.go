// SPDX-License-Identifier: Apache-2.0

package fsmap_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bundle/fsmap"
)

// contains compares the pieces of the files with what was put in. Files that
// are packed with others are only counted.
func contains(t *testing.T, m *fsmap.Map, b []byte, files map[string][]byte) (compared int) {
	t.Helper()
	found := 0
	for _, f := range m.Files {
		want, known := files[f.Path]
		if !known {
			continue
		}
		found++
		if f.Size != int64(len(want)) || f.Mode != 0o100640 || f.MTime == 0 {
			t.Errorf("file = %+v", f)
		}
		var got []byte
		for _, p := range f.Pieces {
			got = append(got, b[p.Offset:][:p.Length]...)
		}
		if f.Partial || len(want) == 0 {
			continue
		}
		if len(got) < len(want) || !bytes.Equal(got[:len(want)], want) {
			t.Errorf("%s: %d bytes in %d pieces are not the file", f.Path, f.Size, len(f.Pieces))
		}
		compared++
	}
	if found != len(files) {
		t.Errorf("%d of %d files are found", found, len(files))
	}
	return compared
}

func TestSquashFS(t *testing.T) {
	root := t.TempDir()
	files := tree(t, root, 1<<20+77, 300)
	for name, tc := range map[string]struct {
		args        []string
		compression string
		compared    int
	}{
		"zstd":         {[]string{"-comp", "zstd"}, "zstd", 0},
		"gzip":         {[]string{"-comp", "gzip"}, "gzip", 0},
		"no fragments": {[]string{"-comp", "gzip", "-no-fragments"}, "gzip", len(files) - 1},
		"plain":        {[]string{"-noI", "-noD", "-noF", "-no-fragments", "-b", "4096"}, "gzip", len(files) - 1},
	} {
		t.Run(name, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "image")
			run(t, "mksquashfs", slices.Concat([]string{root, image, "-noappend", "-no-progress", "-quiet"}, tc.args)...)
			m, b := read(t, image)
			if m.Type != fsmap.SquashFS || m.Compression != tc.compression || m.Incomplete != "" || m.Size > int64(len(b)) {
				t.Errorf("map: %s, %q, %s, %d", m.Type, m.Compression, m.Incomplete, m.Size)
			}
			// The contents are noise, which is stored as it is.
			if n := contains(t, m, b, files); n < tc.compared {
				t.Errorf("%d files are compared; want %d", n, tc.compared)
			}
		})
	}
	t.Run("xz", func(t *testing.T) {
		image := filepath.Join(t.TempDir(), "image")
		run(t, "mksquashfs", root, image, "-noappend", "-no-progress", "-quiet", "-comp", "xz")
		if m, _ := read(t, image); m.Compression != "xz" || !strings.Contains(m.Incomplete, "xz are not supported") || len(m.Extents) > 0 {
			t.Errorf("map = %+v", m)
		}
	})
}

func TestEROFS(t *testing.T) {
	root := t.TempDir()
	files := tree(t, root, 1<<20+77, 300)
	for name, args := range map[string][]string{
		"plain":        nil,
		"chunks":       {"--chunksize=16384"},
		"large inodes": {"-Eforce-inode-extended"},
	} {
		t.Run(name, func(t *testing.T) {
			m, b := read(t, makeEROFS(t, root, args...))
			if m.Type != fsmap.EROFS || m.Compression != "" || m.Incomplete != "" || m.Size != int64(len(b)) || m.UUID == "" {
				t.Errorf("map: %s, %q, %s, %d", m.Type, m.Compression, m.Incomplete, m.Size)
			}
			if n := contains(t, m, b, files); n != len(files)-1 {
				t.Errorf("%d files are compared; want %d", n, len(files)-1)
			}
		})
	}
}

func makeEROFS(t testing.TB, root string, args ...string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	run(t, "mkfs.erofs", slices.Concat(args, []string{image, root})...)
	return image
}

// Where a compressed file begins and ends is what the tool of EROFS says.
func TestCompressedEROFS(t *testing.T) {
	if _, err := exec.LookPath("dump.erofs"); err != nil {
		t.Skip("erofs-utils is not installed: run .ci/setup")
	}
	root := t.TempDir()
	r := rand.NewChaCha8([32]byte{1})
	for i, size := range []int{9000, 50_000, 61_000, 70_000, 200_000, 1_000_000} {
		b := make([]byte, size)
		for at := 0; at < size; at += 1000 {
			r.Read(b[at:min(at+300, size)])
		}
		if err := os.WriteFile(filepath.Join(root, fmt.Sprint("file", i)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, args := range map[string][]string{
		"compact indexes": {"-zlz4"},
		"large clusters":  {"-zlz4hc", "-C65536"},
		"full indexes":    {"-zlz4", "-Elegacy-compress"},
		"large inodes":    {"-zlz4", "-Eforce-inode-extended"},
	} {
		t.Run(name, func(t *testing.T) {
			image := makeEROFS(t, root, args...)
			m, _ := read(t, image)
			if m.Compression != "lz4" || m.Incomplete != "" || len(m.Files) != 7 {
				t.Fatalf("map: %q, %s, %d files", m.Compression, m.Incomplete, len(m.Files))
			}
			for _, f := range m.Files[1:] {
				out, err := exec.Command("dump.erofs", "--path="+f.Path, "-e", image).Output()
				if err != nil {
					t.Fatal(err)
				}
				var want fsmap.Piece
				end := int64(0)
				for line := range strings.Lines(string(out)) {
					var n, l0, l1, length, from, to int64
					if _, err := fmt.Sscanf(strings.Join(strings.Fields(strings.NewReplacer(":", " ", "..", " ", "|", " ").Replace(line)), " "), "%d %d %d %d %d %d", &n, &l0, &l1, &length, &from, &to); err != nil {
						continue
					}
					if end == 0 {
						want.Offset = from
					}
					end = to
				}
				want.Length = end - want.Offset
				if end == 0 || len(f.Pieces) != 1 || f.Pieces[0] != want {
					t.Errorf("%s is in %v; want %v", f.Path, f.Pieces, want)
				}
			}
		})
	}
}
