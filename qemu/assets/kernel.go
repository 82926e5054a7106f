// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/updaterd/updaterd/bundle/bench/debian"
)

// bootModules are what the kernel needs before it has a root file system.
var bootModules = []string{"sdhci-pci", "cqhci", "crc32c_generic", "ext4"}

// boardModules are what else the guests load: the board's devices, and what tests of storage use.
var boardModules = []string{"virtio_pci", "virtio_net", "virtio_console", "virtio-rng", "i6300esb",
	"loop", "squashfs", "overlay"}

// A Kernel is Debian's kernel with the modules that the guests load.
type Kernel struct {
	// Dir holds Image, Image.gz and the modules as modules.tar.
	Dir     string
	Release string
}

// Kernel downloads Debian's kernel for arm64.
func (b *Builder) Kernel(ctx context.Context, set Packages) (*Kernel, error) {
	dir, err := b.cached(ctx, "kernel-"+string(set), key(2, set, bootModules, boardModules, debian.Release), func(dir string) error {
		work, err := os.MkdirTemp(b.cache, "kernel-work-*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work)
		return buildKernel(ctx, work, dir, set)
	})
	if err != nil {
		return nil, err
	}
	version, err := os.ReadFile(filepath.Join(dir, "release"))
	if err != nil {
		return nil, fmt.Errorf("read kernel's release: %w", err)
	}
	return &Kernel{Dir: dir, Release: string(version)}, nil
}

// boardArch is the board's architecture, as Debian calls it.
const boardArch = "arm64"

func buildKernel(ctx context.Context, work, out string, set Packages) error {
	apt, err := newApt(ctx, filepath.Join(work, "apt"), set, boardArch)
	if err != nil {
		return err
	}
	version, err := apt.unpackKernel(ctx, boardArch, filepath.Join(work, "x"))
	if err != nil {
		return err
	}
	image, err := os.ReadFile(filepath.Join(work, "x/boot/vmlinuz-"+version))
	if err != nil {
		return err
	}
	modules, err := pruneModules(ctx, filepath.Join(work, "x"), version, slices.Concat(bootModules, boardModules))
	if err != nil {
		return err
	}
	var mod, gz bytes.Buffer
	if err := modules.writeTar(&mod); err != nil {
		return err
	}
	if err := compress(&gz, image); err != nil {
		return err
	}
	for name, data := range map[string][]byte{"Image": image, "Image.gz": gz.Bytes(), "modules.tar": mod.Bytes(), "release": []byte(version)} {
		if err := os.WriteFile(filepath.Join(out, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// unpackKernel downloads Debian's newest kernel of a flavour, unpacks it into
// dir and returns its release.
func (a *aptState) unpackKernel(ctx context.Context, flavour, dir string) (string, error) {
	depends, err := a.run(ctx, "", "apt-cache", "depends", "--important", "linux-image-"+flavour)
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`linux-image-(\S+-` + flavour + `)\b`).FindSubmatch(depends)
	if m == nil {
		return "", fmt.Errorf("find the kernel's package in %q", depends)
	}
	debs, err := a.download(ctx, string(m[0]))
	if err != nil {
		return "", err
	}
	_, err = run(ctx, command{argv: []string{"dpkg-deb", "-x", debs[0], dir}})
	return string(m[1]), err
}

func compress(w io.Writer, data []byte) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(data); err != nil {
		return err
	}
	return z.Close()
}

// pruneModules returns the wanted modules of an unpacked kernel package, with
// all that they need and with depmod's tables.
func pruneModules(ctx context.Context, root, version string, names []string) (tree, error) {
	top := filepath.Join(root, "lib/modules", version)
	depmod := command{argv: []string{"depmod", "-b", root, version}}
	if _, err := run(ctx, depmod); err != nil {
		return nil, err
	}
	deps, err := readDeps(top)
	if err != nil {
		return nil, err
	}
	keep, err := deps.order(names)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(top, p)
		if err != nil || !strings.HasSuffix(rel, ".ko") || slices.Contains(keep, rel) {
			return err
		}
		return os.Remove(p)
	})
	if err != nil {
		return nil, err
	}
	if _, err := run(ctx, depmod); err != nil {
		return nil, err
	}
	t := tree{}
	err = filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(p)
		t.file("usr/"+rel, 0o644, data)
		return err
	})
	return t, err
}

// moduleDeps is modules.dep: paths, and the paths that each needs.
type moduleDeps map[string][]string

func readDeps(top string) (moduleDeps, error) {
	b, err := os.ReadFile(filepath.Join(top, "modules.dep"))
	if err != nil {
		return nil, err
	}
	return parseDeps(string(b)), nil
}

func parseDeps(text string) moduleDeps {
	deps := moduleDeps{}
	for line := range strings.Lines(text) {
		if name, needs, ok := strings.Cut(line, ":"); ok {
			deps[name] = strings.Fields(needs)
		}
	}
	return deps
}

// order lists the paths of modules and of all that they need, needed ones first.
func (d moduleDeps) order(names []string) ([]string, error) {
	byName := map[string]string{}
	for p := range d {
		byName[moduleName(p)] = p
	}
	var list []string
	var add func(p string)
	add = func(p string) {
		if slices.Contains(list, p) {
			return
		}
		// depmod lists what a module needs from the nearest to the farthest.
		for _, need := range slices.Backward(d[p]) {
			add(need)
		}
		list = append(list, p)
	}
	for _, name := range names {
		p, ok := byName[moduleName(name)]
		if !ok {
			return nil, fmt.Errorf("find kernel module %s: the package has none", name)
		}
		add(p)
	}
	return list, nil
}

func moduleName(p string) string {
	return strings.ReplaceAll(strings.TrimSuffix(path.Base(p), ".ko"), "-", "_")
}

// modules returns the kernel's modules as a tree.
func (k *Kernel) modules() (tree, error) {
	return readTarFile(filepath.Join(k.Dir, "modules.tar"))
}

// initramfs makes the initramfs for a kernel: the project's init and the boot modules.
func initramfs(init []byte, k *Kernel) ([]byte, error) {
	modules, err := k.modules()
	if err != nil {
		return nil, err
	}
	top := "usr/lib/modules/" + k.Release + "/"
	deps, ok := modules[top+"modules.dep"]
	if !ok {
		return nil, fmt.Errorf("build initramfs: kernel %s has no modules.dep", k.Release)
	}
	list, err := parseDeps(string(deps.data)).order(bootModules)
	if err != nil {
		return nil, err
	}
	return initramfsOf(init, list, func(p string) []byte { return modules[top+p].data })
}

// initramfsOf writes the archive. Modules are named m/NAME.ko, in the order of the list.
func initramfsOf(init []byte, list []string, content func(string) []byte) ([]byte, error) {
	records := []cpio.Record{
		cpio.StaticFile("init", string(init), 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1),
	}
	for _, dir := range []string{"dev", "proc", "sys", "root", "m"} {
		records = append(records, cpio.Directory(dir, 0o755))
	}
	var names strings.Builder
	for _, p := range list {
		name := "m/" + path.Base(p)
		records = append(records, cpio.StaticFile(name, string(content(p)), 0o644))
		fmt.Fprintf(&names, "/%s\n", name)
	}
	records = append(records, cpio.StaticFile("modules", names.String(), 0o644))
	return packInitramfs(records)
}

// packInitramfs writes records as a compressed archive that is the same every time.
func packInitramfs(records []cpio.Record) ([]byte, error) {
	slices.SortStableFunc(records, func(a, b cpio.Record) int { return strings.Compare(a.Name, b.Name) })
	cpio.MakeAllReproducible(records)

	var archive, packed bytes.Buffer
	w := cpio.Newc.Writer(&archive)
	if err := cpio.WriteRecords(w, records); err != nil {
		return nil, fmt.Errorf("write initramfs: %w", err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, fmt.Errorf("write initramfs: %w", err)
	}
	if err := compress(&packed, archive.Bytes()); err != nil {
		return nil, fmt.Errorf("write initramfs: %w", err)
	}
	return packed.Bytes(), nil
}
