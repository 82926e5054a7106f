// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/updaterd/updaterd/bundle/bench/debian"
)

// epoch is the time stamp of what is built (SOURCE_DATE_EPOCH). Not of inodes' change
// times: Debian 12's mke2fs copies those, so an ext4 image is not the same twice.
const epoch = 1_700_000_000

// rootPackages make a connected device of the usual kind, on top of Debian's minimal system.
var rootPackages = []string{"systemd", "systemd-sysv", "dbus", "udev", "openssh-server", "python3", "nginx-light", "network-manager",
	"bluez", "iproute2", "ca-certificates", "curl", "openssl", "libglib2.0-bin", "wpasupplicant", "ntpsec"}

// extract is the variant of mmdebstrap that unpacks packages, and no more.
const extract = "extract"

// A system is a tree of files that mmdebstrap makes.
type system struct {
	name    string
	variant string
	include []string
	suites  []string
	// only are the packages that alone are taken from the security suite; all, if it is empty.
	only []string
	// clean is what shell does to the finished tree in $1.
	clean string
	// keep are the parts of the tree that go into an image; all, if it is empty.
	keep []string
}

// What differs between any two installations says nothing about an upgrade.
const cleanRoot = `rm -rf "$1"/var/cache/apt "$1"/var/lib/apt/lists/* "$1"/var/log/* "$1"/var/cache/ldconfig/aux-cache ` +
	`"$1"/etc/ssh/ssh_host_* "$1"/etc/apt/preferences.d/bench`

// A pair is two images of which a device has the old and wants the new.
type pair struct {
	Name     string
	Title    string
	old, new system
	format   format
}

// A format makes an image of a tree.
type format struct {
	name string
	// script is run by sh, under fakeroot: $1 is the tree, $2 the image to make.
	script string
}

const imageUUID, hashSeed = "11111111-2222-3333-4444-555555555555", "11111111-2222-3333-4444-555555555556"

func ext4(mebibytes int) format {
	return format{"ext4", fmt.Sprintf(`truncate -s %dM "$2" && mke2fs -q -F -t ext4 -b 4096 -U %s -E hash_seed=%s,root_owner=0:0 -d "$1" "$2"`,
		mebibytes, imageUUID, hashSeed)}
}

var (
	erofs    = format{"erofs", fmt.Sprintf(`mkfs.erofs -zlz4hc -T%d -U %s "$2" "$1"`, epoch, imageUUID)}
	squashfs = format{"squashfs", `mksquashfs "$1" "$2" -comp zstd -Xcompression-level 15 -noappend -no-progress`}
)

// pairs are all there are, for the machine's own architecture.
func pairs(architecture string) []pair {
	base := system{name: "root-main", variant: "minbase", include: rootPackages, suites: []string{debian.Main}, clean: cleanRoot}
	updated, app := base, base
	updated.name, updated.suites = "root-security", []string{debian.Main, debian.Security}
	app.name, app.suites, app.only = "root-python", updated.suites, []string{"*python3.11*"}
	kernel := system{name: "kernel-main", variant: extract, include: []string{"linux-image-" + architecture},
		suites: base.suites, keep: []string{"./boot", "./lib/modules"}}
	newKernel := kernel
	newKernel.name, newKernel.suites = "kernel-security", updated.suites
	return []pair{
		{"root-ext4", "Security updates, ext4", base, updated, ext4(448)},
		{"root-erofs", "Security updates, EROFS lz4hc", base, updated, erofs},
		{"root-squashfs", "Security updates, squashfs zstd", base, updated, squashfs},
		{"app-ext4", "One application (Python), ext4", base, app, ext4(448)},
		{"kernel-ext4", "Kernel and modules, ext4", kernel, newKernel, ext4(640)},
	}
}

// A builder makes images, or finds them in its cache.
type builder struct {
	cache string
	log   io.Writer
}

// images are the files of a pair.
type images struct {
	old, new string
	// upgraded counts the packages of which old and new have different versions.
	upgraded int
}

func (b *builder) pair(ctx context.Context, p pair) (images, error) {
	var got images
	for _, half := range []struct {
		system system
		image  *string
	}{{p.old, &got.old}, {p.new, &got.new}} {
		dir, err := b.image(ctx, half.system, p.format)
		if err != nil {
			return images{}, err
		}
		*half.image = filepath.Join(dir, "image")
	}
	var err error
	if got.upgraded, err = upgraded(filepath.Join(filepath.Dir(got.old), "packages"), filepath.Join(filepath.Dir(got.new), "packages")); err != nil {
		return images{}, err
	}
	if got.upgraded == 0 {
		return images{}, fmt.Errorf("pair %s: the new image has the package versions of the old one: nothing to update; "+
			"does apt know %s?", p.Name, debian.Security)
	}
	return got, nil
}

// image returns a directory with a system's image, and its packages as dpkg-query lists them.
func (b *builder) image(ctx context.Context, s system, f format) (string, error) {
	root, err := b.root(ctx, s)
	if err != nil {
		return "", err
	}
	// Everybody gets files that belong to root, whoever calls.
	script := `set -e; dir=$1; shift; mkdir "$dir/tree"; tar -C "$dir/tree" --exclude="./dev/*" -xf "$@"
set -- "$dir/tree" "$dir/image"; ` + f.script + `
rm -rf "$1"`
	return b.cached(s.name+"-"+f.name, key(script, filepath.Base(root), s.keep), func(dir string) error {
		argv := append([]string{"fakeroot", "sh", "-c", script, "sh", dir, filepath.Join(root, "root.tar")}, s.keep...)
		if err := command(ctx, argv...); err != nil {
			return err
		}
		return os.Link(filepath.Join(root, "packages"), filepath.Join(dir, "packages"))
	})
}

// root returns a directory with a system as root.tar, and its packages.
func (b *builder) root(ctx context.Context, s system) (string, error) {
	return b.cached(s.name, key(s.variant, s.include, s.suites, s.only, s.clean, debian.Release), func(dir string) error {
		all, err := debian.Sources(ctx)
		if err != nil {
			return err
		}
		list := filepath.Join(dir, "sources.list")
		if err := os.WriteFile(list, []byte(debian.List("deb", all, s.suites...)), 0o644); err != nil {
			return err
		}
		argv := []string{"mmdebstrap", "--quiet", "--variant=" + s.variant, "--include=" + strings.Join(s.include, ","),
			`--aptopt=APT::Install-Recommends "false"`, "--dpkgopt=force-unsafe-io"}
		options, err := debian.MmdebstrapOptions(ctx)
		if err != nil {
			return err
		}
		argv = append(argv, options...)
		if len(s.only) > 0 {
			preferences := fmt.Sprintf("Package: *\nPin: release n=%s\nPin-Priority: 1\n\nPackage: %s\nPin: release n=%[1]s\nPin-Priority: 990\n",
				debian.Security, strings.Join(s.only, " "))
			path := filepath.Join(dir, "preferences")
			if err := os.WriteFile(path, []byte(preferences), 0o644); err != nil {
				return err
			}
			argv = append(argv, `--setup-hook=mkdir -p "$1/etc/apt/preferences.d"`, "--setup-hook=copy-in "+path+" /etc/apt/preferences.d/",
				`--setup-hook=mv "$1/etc/apt/preferences.d/preferences" "$1/etc/apt/preferences.d/bench"`)
		}
		if s.variant != extract {
			argv = append(argv, "--customize-hook=download /var/lib/dpkg/status "+filepath.Join(dir, "status"), "--customize-hook="+s.clean)
		}
		argv = append(argv, debian.Release, filepath.Join(dir, "root.tar"), list)
		if err := command(ctx, argv...); err != nil {
			return err
		}
		return listPackages(ctx, dir, s)
	})
}

// listPackages writes the packages of a system, one a line with its version.
func listPackages(ctx context.Context, dir string, s system) error {
	list := ""
	if s.variant == extract { // dpkg knows nothing of what is only extracted
		out, err := exec.CommandContext(ctx, "tar", "-tf", filepath.Join(dir, "root.tar"), "--wildcards", "./boot/vmlinuz-*").Output()
		if err != nil {
			return fmt.Errorf("find the version of %s: %w", strings.Join(s.include, " "), err)
		}
		list = s.include[0] + " " + strings.TrimPrefix(strings.TrimSpace(string(out)), "./boot/vmlinuz-") + "\n"
	} else {
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			return err
		}
		list = packageVersions(string(status))
	}
	return os.WriteFile(filepath.Join(dir, "packages"), []byte(list), 0o644)
}

// packageVersions takes names and versions from dpkg's status file.
func packageVersions(status string) string {
	var b strings.Builder
	name := ""
	for line := range strings.Lines(status) {
		line = strings.TrimRight(line, "\n")
		if v, found := strings.CutPrefix(line, "Package: "); found {
			name = v
		}
		if v, found := strings.CutPrefix(line, "Version: "); found {
			fmt.Fprintf(&b, "%s %s\n", name, v)
		}
	}
	return b.String()
}

// upgraded counts the packages of the new list that are not so in the old one.
func upgraded(oldList, newList string) (int, error) {
	had, err := os.ReadFile(oldList)
	if err != nil {
		return 0, err
	}
	have, err := os.ReadFile(newList)
	if err != nil {
		return 0, err
	}
	lines := make(map[string]bool)
	for line := range strings.Lines(string(had)) {
		lines[line] = true
	}
	n := 0
	for line := range strings.Lines(string(have)) {
		if !lines[line] {
			n++
		}
	}
	return n, nil
}

// key makes a short name of everything that a build depends on.
func key(parts ...any) string {
	h := sha256.New()
	for _, p := range parts {
		s := fmt.Sprint(p)
		fmt.Fprintf(h, "%d:%s,", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// cached returns the directory name-key of the cache. If it is not there, build
// fills a new directory, which is renamed when it is complete.
func (b *builder) cached(name, key string, build func(dir string) error) (string, error) {
	final := filepath.Join(b.cache, name+"-"+key)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	fmt.Fprintf(b.log, "building %s\n", name)
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(b.cache, "work-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil {
		return "", err
	}
	if err := build(work); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return final, os.Rename(work, final)
}

// command runs a program of the build.
func command(ctx context.Context, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w\n%s", argv[0], err, out[max(0, len(out)-4000):])
	}
	return nil
}

// environment makes messages English, times the same everywhere, and finds what Debian keeps for root.
func environment() []string {
	return append(os.Environ(), "LC_ALL=C", "TZ=UTC", fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch),
		"PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
}
