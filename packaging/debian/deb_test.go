// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/updaterd/updaterd/bundle/bench/debian"
)

func try(env []string, argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), append(env, "MAKEFLAGS=", "MAKELEVEL=")...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := try(nil, argv...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", argv, err, out)
	}
	return out
}

// made are both packages for this machine, of version v1.2.3-rc1, in a directory
// that every user can read.
var made = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "deb"); err != nil {
		return "", err
	}
	scratch = dir
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	if out, err := makeDebs("DEB_TOOLS_ARCHES="+arch(), "DEB_OUT="+dir); err != nil {
		return dir, fmt.Errorf("make deb: %w: %s", err, out)
	}
	return dir, nil
})

// maintainer has what means something to sed.
const maintainer = "R&D of A/B <updaterd@users.noreply.github.com>"

// makeDebs compresses them a little only: that takes most of the time.
func makeDebs(args ...string) (string, error) {
	return try([]string{"DPKG_DEB_COMPRESSOR_LEVEL=1", "DEB_MAINTAINER=" + maintainer}, append([]string{"make", "-s", "-C", "../..", "deb", "VERSION=v1.2.3-rc1", "DEB_ARCHES=" + arch()}, args...)...)
}

var arch = sync.OnceValue(func() string {
	out, _ := try(nil, "dpkg", "--print-architecture") // without dpkg, making packages fails
	return strings.TrimSpace(out)
})

// scratch is the directory of what is made once.
var scratch string

func TestMain(m *testing.M) {
	code := m.Run()
	if scratch != "" {
		os.RemoveAll(scratch)
	}
	os.Exit(code)
}

// deb is the path of a package.
func deb(t *testing.T, name string) string {
	t.Helper()
	dir, err := made()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name+"_1.2.3~rc1_"+arch()+".deb")
}

// files are those below dir, but for what only a package has.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	list := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, dir)
		if err != nil || d.IsDir() || strings.HasPrefix(name, "/usr/share/doc/") || strings.HasPrefix(name, "/usr/share/lintian/") {
			return err
		}
		if d.Type() == fs.ModeSymlink {
			list[name], err = os.Readlink(path)
			return err
		}
		info, err := d.Info()
		list[strings.TrimSuffix(name, ".gz")] = fmt.Sprint(info.Mode())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestPackages(t *testing.T) {
	for name, tc := range map[string]struct {
		install, conffiles, copyright string
	}{
		"updaterd":      {"install", "/etc/init.d/updaterd\n", "---- github.com/godbus/dbus/v5, LICENSE"},
		"updater-tools": {"install-tools", "", "---- github.com/aws/aws-sdk-go-v2, LICENSE.txt"},
	} {
		t.Run(name, func(t *testing.T) {
			deb := deb(t, name)
			if got := run(t, "dpkg-deb", "-f", deb, "Package", "Version", "Architecture", "Maintainer"); got != fmt.Sprintf("Package: %s\nVersion: 1.2.3~rc1\nArchitecture: %s\nMaintainer: %s\n", name, arch(), maintainer) {
				t.Errorf("control: %s", got)
			}
			root, want, control := t.TempDir(), t.TempDir(), t.TempDir()
			run(t, "dpkg-deb", "-x", deb, root)
			run(t, "make", "-s", "-C", "../..", tc.install, "BINARY="+root+"/usr/bin/updaterd", "TOOLS="+root+"/usr/bin", "INIT=systemd sysvinit", "DESTDIR="+want)
			if diff := cmp.Diff(files(t, want), files(t, root)); diff != "" {
				t.Errorf("the package holds something else than make %s: %s", tc.install, diff)
			}
			for line := range strings.Lines(run(t, "dpkg-deb", "-c", deb)) {
				if owner := strings.Fields(line)[1]; owner != "root/root" {
					t.Errorf("the owner is not root: %s", line)
				}
			}
			run(t, "dpkg-deb", "-e", deb, control)
			if got, _ := os.ReadFile(control + "/conffiles"); string(got) != tc.conffiles {
				t.Errorf("conffiles: %q, want %q", got, tc.conffiles)
			}
			run(t, "sh", "-c", "cd "+root+" && md5sum --quiet -c "+control+"/md5sums")
			copyright, err := os.ReadFile(root + "/usr/share/doc/" + name + "/copyright")
			if want := tc.copyright; err != nil || !bytes.Contains(copyright, []byte(want)) {
				t.Errorf("the copyright does not name a module that is linked, %q: %v", want, err)
			}
			if _, err := exec.LookPath("lintian"); err != nil {
				t.Log("lintian is not installed, and was not run")
			} else if out, err := try(nil, "lintian", "--allow-root", "--fail-on", "error,warning", deb); err != nil {
				t.Errorf("lintian: %v\n%s", err, out)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	for given, want := range map[string]string{"1.2.3": "1.2.3", "v1.2.3": "1.2.3", "v1.2.3-4-gabcdef0-dirty": "1.2.3+4+gabcdef0+dirty", "1.2.3-rc1": "1.2.3~rc1", "95864e8": "0~95864e8"} {
		// An architecture that is unknown ends it when the version is made.
		out, err := try([]string{"GO=/bin/false"}, "bash", "-xc", `set -- "$0" /none updaterd sparc; . ./build`, given)
		if err == nil || !strings.Contains(out, "architecture \"sparc\" is unknown") || !strings.Contains(out, "+ version="+want+"\n") {
			t.Errorf("%s: %v, want %s in\n%s", given, err, want, out)
		}
	}
}

// The same tree makes the same package, whoever makes it, and wherever to.
func TestSameBytes(t *testing.T) {
	two := filepath.Join(t.TempDir(), "a directory")
	defer syscall.Umask(syscall.Umask(0o077))
	if out, err := makeDebs("DEB_TOOLS_ARCHES=", "DEB_OUT="+two); err != nil {
		t.Fatalf("make deb: %v: %s", err, out)
	}
	one := deb(t, "updaterd")
	if out, err := try(nil, "cmp", one, filepath.Join(two, filepath.Base(one))); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// inside runs in a system that has just got both packages, before anything was started.
const inside = `set -eu
cd "$1"
echo "version: $(chroot . updaterd --version), $(chroot . updaterctl --version)"
echo "tool: $(chroot . updater-bundle --help | head -n 1)"
echo "keys: $(chroot . updater-sign keygen -o /tmp/k >/dev/null && ls tmp/k.pub)"
echo "enabled: $(readlink etc/systemd/system/multi-user.target.wants/updaterd.service)"
echo "runlevel: $(ls etc/rc2.d | grep -c updaterd)"

# Somebody starts the daemon, if the policy allows it and there is a configuration.
rm -f usr/sbin/policy-rc.d
printf '#!/bin/sh\necho "$*" >>/policy.log\nexit 101\n' >usr/sbin/policy-rc.d
chmod +x usr/sbin/policy-rc.d
cp "$2" package.deb
chroot . dpkg -i /package.deb >/dev/null 2>&1
touch policy.log
echo "without a configuration: $(grep -c updaterd policy.log || true)"
echo 'compatible = "x"' >etc/updaterd/updaterd.toml
chroot . dpkg -i /package.deb >/dev/null 2>&1
# A policy is told an action in brackets that this runlevel is not to have.
echo "with one: $(grep -m 1 updaterd policy.log | tr -d '()' | cut -d ' ' -f 1-2)"
echo "running: $(ls run/updaterd.pid run/updaterd.keeper.pid 2>/dev/null | wc -l)"

chroot . dpkg -r updaterd >/dev/null 2>&1
echo "removed: $(ls usr/bin/updaterd usr/bin/updaterctl 2>/dev/null | wc -l) $(ls etc/init.d/updaterd)"
chroot . /etc/init.d/updaterd start
mkdir -p etc/updaterd/keys data/updaterd
touch etc/updaterd/keys/mine.pub data/updaterd/journal
chroot . dpkg -P updaterd >/dev/null 2>&1
echo "left: $(find etc/updaterd data -type f | sort | tr '\n' ' ')"
rm -r data etc/updaterd package.deb policy.log
echo "purged: $(find etc usr var/lib/systemd -name '*updaterd*' | tr '\n' ' ')"
`

func TestInstalled(t *testing.T) {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("skipped: no mmdebstrap; .ci/setup installs it")
	}
	daemon, tools := deb(t, "updaterd"), deb(t, "updater-tools")
	dir := filepath.Dir(daemon)
	ctx := context.Background()
	all, err := debian.Sources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	options, err := debian.MmdebstrapOptions(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"sources.list": debian.List("deb", all, debian.Main), "inside.sh": inside} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	argv := []string{"mmdebstrap", "--quiet", "--variant=essential", "--format=null", "--dpkgopt=force-unsafe-io", `--aptopt=APT::Install-Recommends "false"`,
		"--dpkgopt=path-exclude=/usr/share/locale/*", "--include=" + daemon, "--include=" + tools,
		"--hook-dir=/usr/share/mmdebstrap/hooks/file-mirror-automount",
		`--customize-hook=sh ` + dir + `/inside.sh "$1" ` + daemon}
	argv = append(append(argv, options...), debian.Release, "/dev/null", filepath.Join(dir, "sources.list"))
	out, err := try([]string{"LC_ALL=C"}, argv...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", argv, err, out[:min(len(out), 4000)])
	}
	for _, want := range []string{
		"version: updaterd v1.2.3-rc1, updaterctl v1.2.3-rc1", "tool: updater-bundle makes the signed file of a release", "keys: tmp/k.pub",
		"enabled: /lib/systemd/system/updaterd.service", "runlevel: 1",
		"without a configuration: 0", "with one: updaterd restart", "running: 0",
		"removed: 0 etc/init.d/updaterd", "left: data/updaterd/journal etc/updaterd/keys/mine.pub etc/updaterd/updaterd.toml \n", "purged: \n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
