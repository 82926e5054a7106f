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
	apt, err := newApt(ctx, filepath.Join(work, "apt"), Base, boardArch)
	if err != nil {
		return err
	}
	if _, err := apt.run(ctx, work, "apt-get", "-q", "source", "--download-only", "u-boot"); err != nil {
		return err
	}
	dsc, err := filepath.Glob(filepath.Join(work, "*.dsc"))
	if err != nil || len(dsc) != 1 {
		return fmt.Errorf("find U-Boot's source package: %v, %w", dsc, err)
	}
	src := filepath.Join(work, "src")
	if _, err := run(ctx, command{dir: work, argv: []string{"dpkg-source", "-x", dsc[0], src}}); err != nil {
		return err
	}
	for name, text := range map[string]string{"updaterd.config": config, "updaterd.env": uboot.Env} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := appendTo(filepath.Join(src, "board/emulation/qemu-arm/qemu-arm.c"), board); err != nil {
		return err
	}
	// The flags of a packager's environment are not for a bootloader.
	env := []string{"CROSS_COMPILE=aarch64-linux-gnu-", "ARCH=arm", "CFLAGS=", "LDFLAGS=", "MAKEFLAGS="}
	for _, argv := range [][]string{
		{"make", "-s", "qemu_arm64_defconfig"},
		{"scripts/kconfig/merge_config.sh", "-m", ".config", "updaterd.config"},
		{"make", "-s", "olddefconfig"},
	} {
		if _, err := run(ctx, command{dir: src, env: env, argv: argv}); err != nil {
			return err
		}
	}
	final, err := os.ReadFile(filepath.Join(src, ".config"))
	if err != nil {
		return err
	}
	if err := uboot.CheckConfig(config, string(final)); err != nil {
		return err
	}
	if _, err := run(ctx, command{dir: src, env: env, argv: []string{"make", "-s", fmt.Sprintf("-j%d", runtime.NumCPU()), flags, "u-boot.bin"}}); err != nil {
		return err
	}
	for _, name := range []string{"u-boot.bin", ".config"} {
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
