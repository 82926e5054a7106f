// SPDX-License-Identifier: Apache-2.0

package fsmap_test

import (
	"bytes"
	"context"
	"errors"
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

// run runs a program of the file system's own tools, or skips the test.
func run(t testing.TB, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if err != nil {
			path, err = exec.LookPath(dir + name)
		}
	}
	if err != nil {
		t.Skipf("%s is not installed: run .ci/setup", name)
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// tree makes files of every shape and returns their contents by path.
func tree(t testing.TB, dir string, large, many int) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	r := rand.NewChaCha8([32]byte{1})
	put := func(path string, n int) {
		b := make([]byte, n)
		r.Read(b)
		files[path] = b
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), b, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	put("/large", large)
	put("/a/b/c/deep", 5000)
	put("/empty", 0)
	for i := range many {
		put(fmt.Sprintf("/many/file with a long name to fill several directory blocks %03d", i), 10+i)
	}
	for link, to := range map[string]string{"short": "a", "long": strings.Repeat("x", 100)} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func makeExt4(t testing.TB, size int64, large int, args ...string) (image string, files map[string][]byte) {
	t.Helper()
	root, image := t.TempDir(), filepath.Join(t.TempDir(), "image")
	files = tree(t, root, large, min(300, int(size>>12)))
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	run(t, "mke2fs", slices.Concat([]string{"-q", "-F", "-d", root}, args, []string{image})...)
	return image, files
}

func read(t testing.TB, image string) (*fsmap.Map, []byte) {
	t.Helper()
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	m, err := fsmap.Read(context.Background(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := sound(m, int64(len(b))); err != nil {
		t.Fatal(err)
	}
	return m, b
}

// sound is an error if a map breaks its contract.
func sound(m *fsmap.Map, size int64) error {
	end := int64(0)
	for _, e := range m.Extents {
		if e.Offset < end || e.Length < 1 || e.Offset+e.Length > size || e.File < -1 || e.File >= len(m.Files) {
			return fmt.Errorf("extent %+v after %d", e, end)
		}
		end = e.Offset + e.Length
	}
	for i, f := range m.Files {
		if i > 0 && f.Path < m.Files[i-1].Path {
			return fmt.Errorf("%q comes after %q", f.Path, m.Files[i-1].Path)
		}
		for _, p := range f.Pieces {
			if p.Offset < 0 || p.Length < 1 || p.Offset+p.Length > size {
				return fmt.Errorf("%q: piece %v", f.Path, p)
			}
		}
	}
	return nil
}

// The bytes that the map points to are those of the files.
func TestExt4(t *testing.T) {
	for name, args := range map[string][]string{
		"4 KiB blocks":         {"-t", "ext4", "-b", "4096"},
		"1 KiB blocks":         {"-t", "ext4", "-b", "1024"},
		"ext2":                 {"-t", "ext2", "-b", "1024"},
		"ext3":                 {"-t", "ext3", "-b", "4096"},
		"small inodes":         {"-t", "ext4", "-b", "4096", "-I", "128"},
		"no checksums":         {"-t", "ext4", "-O", "^metadata_csum,^64bit"},
		"sparse_super2":        {"-t", "ext4", "-O", "sparse_super2"},
		"blocks in many parts": {"-t", "ext4", "-b", "1024", "-g", "256", "-O", "^flex_bg,^resize_inode"},
	} {
		t.Run(name, func(t *testing.T) {
			image, files := makeExt4(t, 48<<20, 9<<20, args...)
			m, b := read(t, image)
			if m.Incomplete != "" || m.Type != fsmap.Ext4 || m.Ext4.HashSeed == "" || m.UUID == "" || m.Size != 48<<20 || m.Ext4.Resized || m.Ext4.MountCount != 0 {
				t.Errorf("map = %+v, %+v", m, m.Ext4)
			}
			found := 0
			for _, f := range m.Files {
				want, known := files[f.Path]
				if !known {
					continue
				}
				found++
				var got []byte
				for _, p := range f.Pieces {
					got = append(got, b[p.Offset:][:p.Length]...)
				}
				if f.Size != int64(len(want)) || len(got) < len(want) || !bytes.Equal(got[:len(want)], want) {
					t.Errorf("%s: %d bytes in %d pieces are not the file", f.Path, f.Size, len(f.Pieces))
				}
				if f.Mode != 0o100640 || !f.IsRegular() || f.MTime == 0 || f.CRTime == 0 && name != "small inodes" && name != "ext2" {
					t.Errorf("file = %+v", f)
				}
			}
			if found != len(files) {
				t.Errorf("%d of %d files are found", found, len(files))
			}
			// Nothing but zeros is called unused.
			for i, end := 0, int64(0); i <= len(m.Extents); i++ {
				next := int64(len(b))
				if i < len(m.Extents) {
					next = m.Extents[i].Offset
				}
				if gap := b[end:next]; len(bytes.Trim(gap, "\x00")) > 0 {
					t.Errorf("%d bytes at %d are called unused", len(gap), end)
				}
				if i < len(m.Extents) {
					end = next + m.Extents[i].Length
				}
			}
		})
	}
}

// A sparse file of many pieces has an extent tree of some depth.
func TestExt4Fragmented(t *testing.T) {
	root, image := t.TempDir(), filepath.Join(t.TempDir(), "image")
	f, err := os.Create(filepath.Join(root, "holes"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range int64(900) {
		if _, err := f.WriteAt(fmt.Appendf(nil, "piece %d", i), i*8192); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(image, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-d", root, image)
	m, b := read(t, image)
	i := slices.IndexFunc(m.Files, func(f fsmap.File) bool { return f.Path == "/holes" })
	if i < 0 || m.Incomplete != "" {
		t.Fatalf("the file is not found (%s)", m.Incomplete)
	}
	pieces := m.Files[i].Pieces
	if len(pieces) != 900 {
		t.Errorf("%d pieces; want 900", len(pieces))
	}
	for n, p := range pieces {
		if want := fmt.Sprintf("piece %d", n); !bytes.HasPrefix(b[p.Offset:], []byte(want)) {
			t.Fatalf("piece %d begins with %q", n, b[p.Offset:][:10])
		}
	}
}

func TestExt4Resized(t *testing.T) {
	image, _ := makeExt4(t, 32<<20, 1<<20, "-t", "ext4", "-b", "4096")
	if err := os.Truncate(image, 256<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "resize2fs", "-f", image)
	if m, _ := read(t, image); !m.Ext4.Resized || m.Size != 256<<20 || m.Incomplete != "" {
		t.Errorf("resized: %+v (%s)", m.Ext4, m.Incomplete)
	}
	if err := os.Truncate(image, 128<<20); err != nil {
		t.Fatal(err)
	}
	if m, _ := read(t, image); !strings.Contains(m.Incomplete, "cut off") {
		t.Errorf("cut off: %q", m.Incomplete)
	}
}

func TestNothingThere(t *testing.T) {
	for _, b := range [][]byte{nil, {1}, make([]byte, 1100), make([]byte, 10000)} {
		if m, err := fsmap.Read(context.Background(), bytes.NewReader(b), int64(len(b))); !errors.Is(err, fsmap.ErrUnknown) {
			t.Errorf("%d bytes: %v, %v", len(b), m, err)
		}
	}
}

// The device writes images without knowing what is in them. The superblock is
// another package, for the check of a configuration.
func TestDeviceBinaryDoesWithout(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "github.com/updaterd/updaterd/updaterd").Output()
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(strings.Fields(string(out)), "github.com/updaterd/updaterd/bundle/fsmap") {
		t.Error("the device binary depends on bundle/fsmap")
	}
}

// Whatever an image holds, the map keeps its contract.
func FuzzRead(f *testing.F) {
	for _, args := range [][]string{
		{"-t", "ext4", "-b", "1024", "-O", "^has_journal", "-N", "80"},
		{"-t", "ext2", "-b", "1024", "-N", "80"},
	} {
		image, _ := makeExt4(f, 200<<10, 30<<10, args...)
		b, err := os.ReadFile(image)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint32(0), byte(0))
		f.Add(b, uint32(1024+0x28), byte(0xff))
	}
	root := f.TempDir()
	tree(f, root, 9000, 20)
	for _, args := range [][]string{
		{"mksquashfs", root, "IMAGE", "-noappend", "-no-progress", "-quiet"},
		{"mkfs.erofs", "IMAGE", root},
		{"mkfs.erofs", "-zlz4", "IMAGE", root},
	} {
		if _, err := exec.LookPath(args[0]); err != nil {
			continue
		}
		image := filepath.Join(f.TempDir(), "image")
		args[slices.Index(args, "IMAGE")] = image
		run(f, args[0], args[1:]...)
		b, err := os.ReadFile(image)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint32(0), byte(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, at uint32, flip byte) {
		b = bytes.Clone(b)
		if len(b) > 0 {
			b[int(at)%len(b)] ^= flip
		}
		m, err := fsmap.Read(context.Background(), bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if err := sound(m, int64(len(b))); err != nil {
			t.Fatal(err)
		}
	})
}
