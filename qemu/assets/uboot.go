// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/updaterd/updaterd/bundle/bench/debian"
	"github.com/updaterd/updaterd/qemu/uboot"
)

// ubootFlags makes U-Boot look for the SD card, which hangs on PCI, before it loads the environment.
const ubootFlags = "KCFLAGS=-DCONFIG_SYS_EARLY_PCI_INIT"

// UBoot builds U-Boot from Debian's source package, with the project's
// configuration and boot commands, and returns the path of u-boot.bin.
func (b *Builder) UBoot(ctx context.Context) (string, error) {
	return b.uboot(ctx, "uboot", uboot.Config, ubootFlags, "")
}

// UBootWriteable builds one that loads nothing but the listed variables from
// the disk.
func (b *Builder) UBootWriteable(ctx context.Context) (string, error) {
	flags := fmt.Sprintf(`%s -DCONFIG_ENV_FLAGS_LIST_STATIC=\"%s\"`, ubootFlags, uboot.WriteableList)
	return b.uboot(ctx, "uboot-writeable", uboot.Config+uboot.WriteableConfig, flags, uboot.WriteableBoard)
}

// uboot builds U-Boot with code that is added to the board's own.
func (b *Builder) uboot(ctx context.Context, name, config, flags, board string) (string, error) {
	parts := []any{1, config, uboot.Env, flags, debian.Release}
	if board != "" {
		parts = append(parts, board)
	}
	dir, err := b.cached(ctx, name, key(parts...), func(dir string) error {
		work, err := os.MkdirTemp(b.cache, "uboot-work-*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work)
		return buildUBoot(ctx, work, dir, config, flags, board)
	})
	return filepath.Join(dir, "u-boot.bin"), err
}

func buildUBoot(ctx context.Context, work, out, config, flags, board string) error {
	src, err := unpackUBoot(ctx, work)
	if err != nil {
		return err
	}
	if err := appendTo(filepath.Join(src, "board/emulation/qemu-arm/qemu-arm.c"), board); err != nil {
		return err
	}
	if err := configureUBoot(ctx, src, config, uboot.Env); err != nil {
		return err
	}
	if err := makeUBoot(ctx, src, flags); err != nil {
		return err
	}
	return keepFiles(src, out, "u-boot.bin", ".config")
}

// unpackUBoot fetches Debian's source package and returns where its source is.
func unpackUBoot(ctx context.Context, work string) (src string, err error) {
	apt, err := newApt(ctx, filepath.Join(work, "apt"), Base, boardArch)
	if err != nil {
		return "", err
	}
	if _, err := apt.run(ctx, work, "apt-get", "-q", "source", "--download-only", "u-boot"); err != nil {
		return "", err
	}
	dsc, err := filepath.Glob(filepath.Join(work, "*.dsc"))
	if err != nil || len(dsc) != 1 {
		return "", fmt.Errorf("find U-Boot's source package: %v, %w", dsc, err)
	}
	src = filepath.Join(work, "src")
	_, err = run(ctx, command{dir: work, argv: []string{"dpkg-source", "-x", dsc[0], src}})
	return src, err
}

// ubootBuild keeps the flags of a packager's environment, which are not for a bootloader, away.
var ubootBuild = []string{"CROSS_COMPILE=aarch64-linux-gnu-", "ARCH=arm", "CFLAGS=", "LDFLAGS=", "MAKEFLAGS="}

// configureUBoot merges the fragments over the board's own configuration, each
// over those before it, and makes sure that the last one is in force.
func configureUBoot(ctx context.Context, src, config, env string, over ...string) error {
	files := map[string]string{"updaterd.config": config, "updaterd.env": env}
	merge, last := []string{"scripts/kconfig/merge_config.sh", "-m", ".config", "updaterd.config"}, config
	for i, fragment := range over {
		name := fmt.Sprintf("updaterd-%d.config", i)
		files[name], last = fragment, fragment
		merge = append(merge, name)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, argv := range [][]string{{"make", "-s", "qemu_arm64_defconfig"}, merge, {"make", "-s", "olddefconfig"}} {
		if _, err := run(ctx, command{dir: src, env: ubootBuild, argv: argv}); err != nil {
			return err
		}
	}
	final, err := os.ReadFile(filepath.Join(src, ".config"))
	if err != nil {
		return err
	}
	return uboot.CheckConfig(last, string(final))
}

func makeUBoot(ctx context.Context, src, flags string) error {
	_, err := run(ctx, command{dir: src, env: ubootBuild, argv: []string{"make", "-s", fmt.Sprintf("-j%d", runtime.NumCPU()), flags, "u-boot.bin"}})
	return err
}

func keepFiles(src, out string, names ...string) error {
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
