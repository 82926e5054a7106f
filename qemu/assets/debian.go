// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/updaterd/updaterd/bundle/bench/debian"
)

// systemdPackages make the systemd flavour, on top of Debian's essential packages.
var systemdPackages = []string{"systemd", "systemd-sysv", "udev", "dbus", "polkitd", "ca-certificates", "openssl", "libubootenv-tool",
	"iproute2", "login", "passwd", "kmod", "util-linux", "mount"}

// smallPackages are unpacked for the small flavour, without their scripts.
var smallPackages = []string{"busybox-static", "dbus-daemon", "dbus-bin", "dbus-system-bus-common", "libubootenv-tool",
	"libapparmor1", "libaudit1", "libc6", "libcap-ng0", "libcap2", "libdbus-1-3", "libexpat1", "libgcrypt20", "libgpg-error0",
	"liblz4-1", "liblzma5", "libpcre2-8-0", "libselinux1", "libsystemd0", "libubootenv0.1", "libzstd1", "zlib1g"}

// extraPackage is added to the updated system if the machine knows no archive of
// updates, so that the two sets always differ.
const extraPackage = "less"

// excluded is not needed on a device: documentation, translations, and what
// only a system that installs packages needs.
var excluded = []string{
	"usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian", "usr/share/bash-completion",
	"usr/share/zsh", "usr/share/bug", "usr/share/menu", "usr/share/pixmaps", "usr/share/common-licenses", "usr/share/debconf",
	"usr/share/perl", "usr/share/perl5", "usr/lib/*/perl", "usr/lib/*/perl5", "usr/lib/*/perl-base", "usr/bin/perl*",
	"usr/share/initramfs-tools", "usr/share/dpkg", "usr/share/doc-base", "usr/lib/apt", "usr/lib/dpkg", "usr/include",
	"usr/share/zoneinfo", "usr/lib/*/gconv", "usr/lib/locale", "usr/share/i18n", "usr/share/gcc",
	"usr/lib/udev/rules.d/60-[ceists]*.rules", "usr/lib/udev/rules.d/60-persistent-[aitv]*.rules", "usr/lib/udev/rules.d/60-drm.rules",
	"usr/lib/udev/rules.d/7[058]-*.rules", "usr/lib/udev/rules.d/64-*.rules", "usr/lib/udev/rules.d/69-*.rules", "usr/lib/udev/rules.d/90-*.rules",
	"usr/lib/udev/hwdb.bin", "usr/lib/udev/hwdb.d", "etc/udev/hwdb.bin", "usr/lib/systemd/catalog", "usr/share/gdb",
	"usr/bin/dpkg*", "usr/bin/apt*", "usr/sbin/update-*", "usr/bin/deb-*", "usr/bin/debconf*", "etc/apt", "etc/dpkg", "etc/cron.*",
	"etc/init.d", "etc/rc?.d", "etc/alternatives/*.gz", "etc/*-", "boot/*", "var/*", "tmp/*", "run/*", "dev/*", "proc/*", "sys/*",
}

// smallExcluded is what more the small flavour does without. It keeps usr/share/dbus-1.
var smallExcluded = []string{"usr/lib/systemd", "usr/share/[^d]*", "usr/share/debianutils"}

// systemdRoot builds Debian with systemd and D-Bus and returns the tar file.
func (b *Builder) systemdRoot(ctx context.Context, set Packages) (string, error) {
	if set == Updated {
		return b.updatedRoot(ctx)
	}
	dir, err := b.cached(ctx, "debian-base", key(5, systemdPackages, debian.Release), func(dir string) error {
		return debootstrap(ctx, dir)
	})
	return filepath.Join(dir, "root.tar"), err
}

// debootstrap installs a system by mmdebstrap: packages' scripts run under qemu-user.
func debootstrap(ctx context.Context, dir string) error {
	all, err := debian.Sources(ctx)
	if err != nil {
		return err
	}
	list := filepath.Join(dir, "sources.list")
	if err := os.WriteFile(list, []byte(debian.List("deb", all, Base.suites()...)), 0o644); err != nil {
		return err
	}
	options, err := debian.MmdebstrapOptions(ctx)
	if err != nil {
		return err
	}
	argv := []string{"mmdebstrap", "--quiet", "--architectures=arm64", "--variant=essential", "--include=" + strings.Join(systemdPackages, ","),
		`--aptopt=APT::Install-Recommends "false"`, "--dpkgopt=force-unsafe-io"}
	for _, path := range []string{"man", "doc", "locale", "info", "zoneinfo"} {
		argv = append(argv, "--dpkgopt=path-exclude=/usr/share/"+path+"/*")
	}
	argv = append(argv, options...)
	argv = append(argv, debian.Release, filepath.Join(dir, "root.tar"), list)
	_, err = run(ctx, command{argv: argv})
	return err
}

// updatedRoot is the base system with its updates unpacked over it. What their
// scripts would do matters on no device that is made this way, and running them
// under qemu-user takes minutes.
func (b *Builder) updatedRoot(ctx context.Context) (string, error) {
	base, err := b.systemdRoot(ctx, Base)
	if err != nil {
		return "", err
	}
	dir, err := b.cached(ctx, "debian-updated", key(5, filepath.Base(filepath.Dir(base)), extraPackage), func(dir string) error {
		work, err := os.MkdirTemp(b.cache, "debian-work-*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work)
		t, err := readTarFile(base)
		if err != nil {
			return err
		}
		debs, err := updates(ctx, work, t)
		if err != nil {
			return err
		}
		for _, deb := range debs {
			if err := t.addDeb(ctx, deb, nil); err != nil {
				return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
			}
		}
		return writeTarFile(t, filepath.Join(dir, "root.tar"))
	})
	return filepath.Join(dir, "root.tar"), err
}

// updates downloads what apt would upgrade in a system.
func updates(ctx context.Context, work string, t tree) ([]string, error) {
	const statusFile = "var/lib/dpkg/status"
	status, ok := t[statusFile]
	if !ok {
		return nil, fmt.Errorf("find updates: the system has no %s", statusFile)
	}
	apt, err := newApt(ctx, work, Updated, boardArch)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(work, "status"), status.data, 0o644); err != nil {
		return nil, err
	}
	for _, action := range [][]string{{"upgrade"}, {"install", extraPackage}} {
		argv := append([]string{"apt-get", "-q", "-y", "--download-only"}, action...)
		if _, err := apt.run(ctx, "", argv...); err != nil {
			return nil, err
		}
		debs, err := filepath.Glob(filepath.Join(work, "archives", "*.deb"))
		if err != nil || len(debs) > 0 {
			return debs, err
		}
	}
	return nil, errors.New("find updates: apt downloaded nothing")
}

// smallRoot unpacks the packages of the small flavour and returns the tar file.
func (b *Builder) smallRoot(ctx context.Context, set Packages) (string, error) {
	dir, err := b.cached(ctx, "busybox-"+string(set), key(6, set, smallPackages, excluded, smallExcluded, debian.Release), func(dir string) error {
		work, err := os.MkdirTemp(b.cache, "busybox-work-*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work)
		apt, err := newApt(ctx, work, set, boardArch)
		if err != nil {
			return err
		}
		debs, err := apt.download(ctx, smallPackages...)
		if err != nil {
			return err
		}
		return unpackSmall(ctx, debs, filepath.Join(dir, "root.tar"))
	})
	return filepath.Join(dir, "root.tar"), err
}

func unpackSmall(ctx context.Context, debs []string, out string) error {
	t := tree{}
	for _, dir := range []string{"bin", "sbin", "lib"} {
		t.dir("usr/"+dir, 0o755)
		t.symlink(dir, "usr/"+dir)
	}
	for _, deb := range debs {
		if err := t.addDeb(ctx, deb, nil); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
		}
	}
	t.remove(excluded...)
	t.remove(smallExcluded...)
	return writeTarFile(t, out)
}

func writeTarFile(t tree, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := t.writeTar(f); err != nil {
		return err
	}
	return f.Close()
}

func readTarFile(path string) (tree, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t := tree{}
	return t, t.addTar(f, nil)
}
