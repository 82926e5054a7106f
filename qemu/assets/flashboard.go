// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"archive/tar"
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/updaterd/updaterd/bundle/bench/debian"
)

// The board with raw flash is QEMU's sabrelite (i.MX6): Debian has a kernel for
// it that knows both its SPI NOR flash and simulated NAND, and QEMU's chip obeys
// the rules of flash: a write clears bits, and only an erase sets them.
const (
	flashArch    = "armhf"
	flashFlavour = "armmp"
	flashTree    = "imx6q-sabrelite.dtb"
)

// flashModules are loaded in this order.
var flashModules = []string{"gpio-mxc", "spi-imx", "spi-nor", "nandsim", "ubi"}

// flashPackages hold the tools that a test compares with, and what they need.
var flashPackages = []string{"libc6", "libubootenv-tool", "libubootenv0.1", "mtd-utils", "zlib1g"}

var flashTools = []string{"usr/bin/fw_printenv", "usr/bin/fw_setenv", "usr/sbin/ubiattach", "usr/sbin/ubimkvol", "usr/sbin/ubiupdatevol"}

// A FlashBoard is what starts the board with raw flash.
type FlashBoard struct{ dir string }

// Kernel is the path of the kernel.
func (f *FlashBoard) Kernel() string { return filepath.Join(f.dir, "zImage") }

// DeviceTree is the path of the device tree.
func (f *FlashBoard) DeviceTree() string { return filepath.Join(f.dir, flashTree) }

// FlashBoard downloads Debian's kernel, its modules and the tools for the board with raw flash.
func (b *Builder) FlashBoard(ctx context.Context) (*FlashBoard, error) {
	dir, err := b.cached(ctx, "flashboard", key(1, flashModules, flashPackages, flashTools, debian.Release), func(dir string) error {
		work, err := os.MkdirTemp(b.cache, "flashboard-work-*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work)
		return buildFlashBoard(ctx, work, dir)
	})
	return &FlashBoard{dir}, err
}

func buildFlashBoard(ctx context.Context, work, out string) error {
	apt, err := newApt(ctx, filepath.Join(work, "apt"), Base, flashArch)
	if err != nil {
		return err
	}
	tools, err := apt.download(ctx, flashPackages...)
	if err != nil {
		return err
	}
	root := filepath.Join(work, "x")
	version, err := apt.unpackKernel(ctx, flashFlavour, root)
	if err != nil {
		return err
	}
	modules, err := pruneModules(ctx, root, version, flashModules)
	if err != nil {
		return err
	}
	t := tree{}
	for _, deb := range tools {
		if err := t.addDeb(ctx, deb, wantedOnFlashBoard); err != nil {
			return err
		}
	}
	top := "usr/lib/modules/" + version + "/"
	list, err := parseDeps(string(modules[top+"modules.dep"].data)).order(flashModules)
	if err != nil {
		return err
	}
	for _, p := range list {
		t.file("m/"+path.Base(p), 0o644, modules[top+p].data)
	}
	t.file("modules", 0o644, []byte(strings.Join(list, "\n")+"\n"))
	if err := writeTarFile(t, filepath.Join(out, "root.tar")); err != nil {
		return err
	}
	for name, from := range map[string]string{"zImage": "boot/vmlinuz-" + version, flashTree: "usr/lib/linux-image-" + version + "/" + flashTree} {
		data, err := os.ReadFile(filepath.Join(root, from))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// wantedOnFlashBoard keeps the tools and the libraries.
func wantedOnFlashBoard(name string) bool {
	if slices.Contains(flashTools, name) {
		return true
	}
	base := path.Base(name)
	for _, library := range []string{"libc.so", "libc-", "ld-", "libubootenv.so", "libz.so"} {
		if strings.HasPrefix(base, library) {
			return true
		}
	}
	return false
}

// Initramfs is the board's whole system: the tools, the modules (in /m, named in
// their order by /modules) and init, which is a program for 32-bit Arm.
func (f *FlashBoard) Initramfs(init []byte) ([]byte, error) {
	t, err := readTarFile(filepath.Join(f.dir, "root.tar"))
	if err != nil {
		return nil, fmt.Errorf("build initramfs: %w", err)
	}
	t.file("init", 0o755, init)
	for _, dir := range []string{"dev", "proc", "sys", "tmp", "var/lock"} {
		t.dir(dir, 0o755)
	}
	records := []cpio.Record{cpio.CharDev("dev/console", 0o600, 5, 1)}
	for _, name := range slices.Sorted(maps.Keys(t)) {
		switch n := t[name]; n.kind {
		case tar.TypeDir:
			records = append(records, cpio.Directory(name, uint64(n.mode)))
		case tar.TypeSymlink:
			records = append(records, cpio.Symlink(name, n.link))
		default:
			records = append(records, cpio.StaticFile(name, string(n.data), uint64(n.mode)))
		}
	}
	return packInitramfs(records)
}
