// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/updaterd/updaterd/bootctl"
	product "github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/qemu/uboot"
)

func TestModuleOrder(t *testing.T) {
	deps := parseDeps("kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\nkernel/fs/jbd2/jbd2.ko: kernel/lib/crc16.ko\nkernel/lib/crc16.ko:\nkernel/drivers/a-b.ko:\n")
	got, err := deps.order([]string{"ext4", "a_b"})
	want := []string{"kernel/lib/crc16.ko", "kernel/fs/jbd2/jbd2.ko", "kernel/fs/ext4/ext4.ko", "kernel/drivers/a-b.ko"}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("order = %v, %v; want %v", got, err, want)
	}
	if got, err := deps.order([]string{"none"}); err == nil {
		t.Errorf("order of an unknown module = %v; want an error", got)
	}
}

func TestInitramfs(t *testing.T) {
	content := func(p string) []byte { return []byte("module " + p) }
	build := func() []byte {
		b, err := initramfsOf([]byte("the init"), []string{"kernel/z.ko", "kernel/a.ko"}, content)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	packed := build()
	if !bytes.Equal(packed, build()) {
		t.Error("two builds differ")
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	archive, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(archive)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, r := range records {
		if r.Mode&cpio.S_IFMT == cpio.S_IFREG {
			b, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
			if err != nil {
				t.Fatal(err)
			}
			files[r.Name] = string(b)
		} else {
			files[r.Name] = ""
		}
	}
	want := map[string]string{"init": "the init", "modules": "/m/z.ko\n/m/a.ko\n", "m/z.ko": "module kernel/z.ko", "m/a.ko": "module kernel/a.ko",
		"dev": "", "dev/console": "", "proc": "", "sys": "", "root": "", "m": ""}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Error(diff)
	}
}

func TestTree(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeSymlink, Name: "./lib", Linkname: "usr/lib"},
		{Typeflag: tar.TypeDir, Name: "./usr/lib/", Mode: 0o750, Uid: 7},
		{Typeflag: tar.TypeReg, Name: "./lib/x/file", Mode: 0o4755, Size: 2},
		{Typeflag: tar.TypeLink, Name: "./usr/lib/again", Linkname: "./usr/lib/x/file"},
		{Typeflag: tar.TypeChar, Name: "./dev/null"},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("hi")[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tr := tree{}
	if err := tr.addTar(&b, nil); err != nil {
		t.Fatal(err)
	}
	tr.file("/lib/udev/rules.d/60-a.rules", 0o644, nil)
	tr.remove("usr/lib/udev/rules.d/60-*.rules", "etc/*")
	file := &node{kind: tar.TypeReg, mode: 0o4755, data: []byte("hi")}
	dir := &node{kind: tar.TypeDir, mode: 0o755}
	want := tree{"lib": {kind: tar.TypeSymlink, link: "usr/lib"}, "usr": dir, "usr/lib": {kind: tar.TypeDir, mode: 0o750, uid: 7},
		"usr/lib/x": dir, "usr/lib/x/file": file, "usr/lib/again": file, "usr/lib/udev": dir, "usr/lib/udev/rules.d": dir}
	if diff := cmp.Diff(want, tr, cmp.AllowUnexported(node{})); diff != "" {
		t.Fatal(diff)
	}
	var out bytes.Buffer
	if err := tr.writeTar(&out); err != nil {
		t.Fatal(err)
	}
	back := tree{}
	if err := back.addTar(&out, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tr, back, cmp.AllowUnexported(node{})); diff != "" {
		t.Error(diff)
	}
}

func TestTreeLoop(t *testing.T) {
	tr := tree{}
	tr.symlink("a", "b")
	tr.symlink("b", "a")
	tr.file("c", 0o644, nil)
	if got := tr.resolve("c/../c"); got == "" {
		t.Error("resolve = nothing")
	}
}

func TestCached(t *testing.T) {
	b, err := New(Options{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	built := 0
	build := func(dir string) error {
		built++
		return os.WriteFile(filepath.Join(dir, "x"), []byte("y"), 0o644)
	}
	broken := errors.New("broken")
	if _, err := b.cached(t.Context(), "n", "k", func(string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("cached = %v; want what the build said", err)
	}
	for range 2 {
		dir, err := b.cached(t.Context(), "n", "k", build)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "x")); err != nil {
			t.Error(err)
		}
	}
	if built != 1 {
		t.Errorf("built %d times, want once", built)
	}
	unlock, err := lock(t.Context(), filepath.Join(b.cache, "n-other.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.cached(ctx, "n", "other", build); !errors.Is(err, context.Canceled) {
		t.Errorf("cached, while another builds = %v; want it to wait until its context ends", err)
	}
}

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	b, err := New(Options{Cache: dir})
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"rootfs-small-1-old", "rootfs-small-1-young", "uboot-old", "uboot-work-old", "kernel-x.new"} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "young") {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := b.prune(time.Minute); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{filepath.Join(dir, "rootfs-small-1-young"), filepath.Join(dir, "uboot-old")}; !cmp.Equal(left, want) {
		t.Errorf("prune left %v, want %v", left, want)
	}
}

// What a factory disk holds is read by the product's own codec.
func TestEnvironmentOfDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(firstPartition); err != nil {
		t.Fatal(err)
	}
	d := Disk{Flavour: Small, EnvID: "factory", Env: map[string]string{"boot_slot": "b", "boot_bad": "a", "upgrade_available": "1", "bootcount": "1"}}
	if err := d.writeEnv(f); err != nil {
		t.Fatal(err)
	}
	status := readStatus(t, path)
	want := bootctl.Status{Primary: "b", Trial: true, TriesLeft: 2, Bad: []bootctl.Slot{"a"}, EnvID: "factory", Copies: 2, Redundant: true}
	if diff := cmp.Diff(want, status); diff != "" {
		t.Error(diff)
	}
	if _, err := f.WriteAt(make([]byte, uboot.EnvSize), uboot.EnvOffset); err != nil {
		t.Fatal(err)
	}
	want.Copies = 1
	if diff := cmp.Diff(want, readStatus(t, path)); diff != "" {
		t.Errorf("with the first copy lost: %s", diff)
	}
}

func readStatus(t *testing.T, disk string) bootctl.Status {
	t.Helper()
	config := filepath.Join(t.TempDir(), "fw_env.config")
	text := fmt.Sprintf("%s 0x%x 0x%x\n%s 0x%x 0x%x\n", disk, uboot.EnvOffset, uboot.EnvSize, disk, uboot.EnvOffset2, uboot.EnvSize)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	control, err := product.Open(product.Options{Config: config, LockFile: config + ".lock"})
	if err != nil {
		t.Fatal(err)
	}
	status, err := control.Status()
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func TestLayout(t *testing.T) {
	for _, flavour := range []Flavour{Small, Systemd} {
		d := Disk{Flavour: flavour}
		table, err := d.Layout()
		if err != nil {
			t.Fatal(err)
		}
		if table.Size&(table.Size-1) != 0 {
			t.Errorf("%s: a card of %d bytes; QEMU wants a power of two", flavour, table.Size)
		}
		if data := table.Parts[2]; data.Size < 64<<20 || table.Parts[0].Size < flavour.ImageSize() {
			t.Errorf("%s: %+v: too small", flavour, table.Parts)
		}
	}
	if table, err := (&Disk{Flavour: Small, SlotSize: 12345}).Layout(); err == nil {
		t.Errorf("Layout with odd slots = %+v; want an error", table)
	}
}

func FuzzNormalise(f *testing.F) {
	f.Add(make([]byte, 4096))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.Write(data); err != nil {
			t.Fatal(err)
		}
		// It may refuse, but it must not fail in any other way.
		_ = normalise(file, int64(len(data)), epoch)
	})
}
