// SPDX-License-Identifier: Apache-2.0

package yocto

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A checkout is a release of OE-core beside the BitBake that belongs to it.
type checkout struct {
	series, core, bitbake string
}

// checkouts are those that OECORE_DIR and BITBAKE_DIR name, a colon between
// several. Without any, the test is skipped.
func checkouts(t *testing.T) []checkout {
	t.Helper()
	var cores, bitbakes []string
	for name, list := range map[string]*[]string{"OECORE_DIR": &cores, "BITBAKE_DIR": &bitbakes} {
		if *list = filepath.SplitList(os.Getenv(name)); len(*list) == 0 {
			t.Skipf("skipped: no OE-core checkout (OECORE_DIR) or no BitBake (BITBAKE_DIR): this test runs BitBake; see CONTRIBUTING.md")
		}
	}
	if len(cores) != len(bitbakes) {
		t.Fatalf("OECORE_DIR names %d checkouts and BITBAKE_DIR %d: each OE-core wants the BitBake of its release", len(cores), len(bitbakes))
	}
	all := make([]checkout, len(cores))
	for i := range all {
		conf, err := os.ReadFile(filepath.Join(cores[i], "meta/conf/layer.conf"))
		if err != nil {
			t.Fatalf("OECORE_DIR: %s is no checkout of OE-core: %v", cores[i], err)
		}
		found := regexp.MustCompile(`(?m)^LAYERSERIES_COMPAT_core = "(\S+)"`).FindSubmatch(conf)
		if found == nil {
			t.Fatalf("OECORE_DIR: %s does not say of which series it is", cores[i])
		}
		if _, err := os.Stat(filepath.Join(bitbakes[i], "bin/bitbake")); err != nil {
			t.Fatalf("BITBAKE_DIR: %s is no checkout of BitBake: %v", bitbakes[i], err)
		}
		all[i] = checkout{string(found[1]), cores[i], bitbakes[i]}
	}
	return all
}

// nobody is whom BitBake is run as by root, which it refuses to be.
const nobody = 65534

// A site is a directory that BitBake can work in, with what all builds share.
type site struct {
	dir     string
	goroot  string
	tarball string // the release
	version string
}

var (
	shared    *site
	temporary string // to be removed
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if code == 0 && temporary != "" {
		os.RemoveAll(temporary)
	}
	os.Exit(code)
}

// theSite makes one, for all tests, which is removed unless a test fails; or in
// YOCTO_WORK_DIR, where compiled packages and parsed recipes are found again.
func theSite(t *testing.T) *site {
	t.Helper()
	if shared != nil {
		return shared
	}
	dir := os.Getenv("YOCTO_WORK_DIR")
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("/var/tmp", "updaterd-yocto-*"); err != nil {
			t.Fatal(err)
		}
		temporary = dir
	}
	s := &site{dir: dir}
	s.mkdir(t, "")
	s.mkdir(t, "gocache")
	// Links are for a checkout; a copy of the layer has files.
	layers := filepath.Join(dir, "layers")
	if err := os.RemoveAll(layers); err != nil {
		t.Fatal(err)
	}
	s.mkdir(t, "layers")
	for _, layer := range layerDirs {
		run(t, "cp", "-RL", layer, layers)
	}
	s.findGo(t)
	s.makeTarball(t)
	shared = s
	return s
}

// mkdir makes a directory below the site, and those above it, BitBake's own.
func (s *site) mkdir(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if name != "" && name != "." {
		s.mkdir(t, filepath.Dir(name))
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	s.own(t, path)
	return path
}

func (s *site) own(t *testing.T, path string) {
	t.Helper()
	if os.Getuid() == 0 {
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *site) write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	s.mkdir(t, filepath.Dir(name))
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	s.own(t, path)
	return path
}

// command is one that runs as BitBake's user, with nothing of our environment.
func (s *site) command(ctx context.Context, env []string, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = s.dir, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	// BitBake has servers and workers: all of them end.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// findGo takes this Go, or a copy of it if BitBake's user cannot get at it.
func (s *site) findGo(t *testing.T) {
	t.Helper()
	s.goroot = strings.TrimSpace(run(t, "go", "env", "GOROOT"))
	if s.command(t.Context(), nil, filepath.Join(s.goroot, "bin/go"), "version").Run() == nil {
		return
	}
	copied := filepath.Join(s.dir, "go")
	if _, err := os.Stat(copied); err != nil {
		run(t, "cp", "-RL", s.goroot, copied)
		run(t, "chmod", "-R", "a+rX", copied)
	}
	s.goroot = copied
	if out, err := s.command(t.Context(), nil, filepath.Join(s.goroot, "bin/go"), "version").CombinedOutput(); err != nil {
		t.Fatalf("a copy of Go does not run: %v\n%s", err, out)
	}
}

// makeTarball makes the release of what is committed, with the version that the
// recipes have, and writes its sum where a release has it.
func (s *site) makeTarball(t *testing.T) {
	t.Helper()
	recipes, err := filepath.Glob(filepath.Join(layerDirs[0], "recipes-core/updaterd/updaterd_*.bb"))
	if err != nil || len(recipes) != 1 {
		t.Fatalf("recipes of updaterd: %v, %v; want one", recipes, err)
	}
	s.version = strings.TrimSuffix(strings.SplitN(filepath.Base(recipes[0]), "_", 2)[1], ".bb")
	name := "updaterd-" + s.version + ".tar.gz"
	s.tarball = filepath.Join(s.dir, "downloads", name)
	// A commit always gives the same one, and a kept directory has it already.
	commit := run(t, "git", "rev-parse", "HEAD")
	if have, err := os.ReadFile(s.tarball + ".commit"); err != nil || string(have) != commit {
		run(t, "make", "-s", "-C", "..", "dist", "VERSION="+s.version)
		data, err := os.ReadFile(filepath.Join("../dist", name))
		if err != nil {
			t.Fatal(err)
		}
		s.write(t, "downloads/"+name, string(data), 0o644)
		// BitBake takes what is in DL_DIR for complete if this is beside it, and still checks the sum.
		s.write(t, "downloads/"+name+".done", "", 0o644)
		s.write(t, "downloads/"+name+".commit", commit, 0o644)
	}
	run(t, "../.ci/release-sums", s.version, s.tarball, filepath.Join(s.dir, "layers"))
}

// A build is a directory of BitBake's for one checkout.
type build struct {
	*site
	checkout
	name string
}

// assumed is what a short build takes from the host, or does without.
var assumed = []string{
	"go-native", "quilt-native", "patch-replacement-native", "unzip-native", "xz-native", "zstd-native", "e2fsprogs-native",
	"pseudo-native", "virtual/fakeroot-native", "systemd-systemctl-native", "rpm-native", "dwarfsrcfiles-native",
	"opkg-native", "opkg-utils-native", "ldconfig-native", "createrepo-c-native", "coreutils-native", "patchelf-native",
	"binutils-cross-x86_64", "binutils-cross-aarch64", "virtual/cross-binutils", "virtual/aarch64-oe-linux-binutils",
	"bash-completion", "update-rc.d", "update-rc.d-native", "initscripts",
	"dbus", "ca-certificates", "polkit", "u-boot-default-env", "base-files", "os-release", "update-alternatives",
}

// newBuild configures a build. A short one masks OE-core's recipes: nothing is
// built but ours, with this machine's Go.
func (s *site) newBuild(t *testing.T, c checkout, name string, layers []string, short bool, more ...string) *build {
	t.Helper()
	b := &build{s, c, name}
	// What a short build needs that OE-core would build first.
	shim := s.write(t, name+"/bin/pseudo", "#!/bin/sh\ncase $1 in -S) exit 0 ;; esac\nexec unshare -r \"$@\"\n", 0o755)
	var bblayers strings.Builder
	fmt.Fprintf(&bblayers, "POKY_BBLAYERS_CONF_VERSION = \"2\"\nBBPATH = \"${TOPDIR}\"\nBBFILES ?= \"\"\nBBLAYERS ?= \"%s/meta\"\n", c.core)
	for _, layer := range layers {
		fmt.Fprintf(&bblayers, "BBLAYERS += \"%s\"\n", filepath.Join(s.dir, "layers", filepath.Base(layer)))
	}
	s.write(t, name+"/conf/bblayers.conf", bblayers.String(), 0o644)
	local := []string{
		`MACHINE ??= "qemuarm64"`,
		`CONF_VERSION = "2"`,
		`DISTRO_FEATURES:append = " updaterd"`,
		fmt.Sprintf(`DL_DIR = "%s/downloads"`, s.dir),
		`TMPDIR = "${TOPDIR}/tmp"`,
		`BB_NO_NETWORK = "1"`,
		`CONNECTIVITY_CHECK_URIS = ""`,
		`BB_HASHSERVE = ""`,
		`BB_SIGNATURE_HANDLER = "OEBasicHash"`,
		`BB_SERVER_TIMEOUT = "0"`,
		// Without uninative, which would be downloaded.
		`INHERIT_DISTRO = "debian devshell sstate license remove-libtool"`,
	}
	if c.series == "scarthgap" {
		local = append(local, `TCLIBCAPPEND = ""`) // to TMPDIR; newer series refuse it
	}
	if short {
		tools := s.goroot + "/pkg/tool/" + runtime.GOOS + "_" + runtime.GOARCH
		local = append(local,
			`PACKAGE_CLASSES = "package_ipk"`,
			// Nobody takes anything from this build.
			`SSTATE_SKIP_CREATION = "1"`,
			`HOSTTOOLS += "go unshare mke2fs mkfs.ext4 fsck.ext4 debugfs aarch64-linux-gnu-objdump"`,
			// With the bbappends for what is masked.
			fmt.Sprintf(`BBMASK += "^%s/meta/recipes- /layers/[^/]*/recipes-(bsp|kernel)/"`, regexp.QuoteMeta(c.core)),
			fmt.Sprintf(`ASSUME_PROVIDED += "%s"`, strings.Join(assumed, " ")),
			`INHIBIT_DEFAULT_DEPS:pn-updaterd = "1"`,
			`DEPENDS_GOLANG:class-target:pn-updaterd = ""`,
			`GO:pn-updaterd = "go"`,
			fmt.Sprintf(`GOROOT:pn-updaterd = "%s"`, s.goroot),
			fmt.Sprintf(`GOTOOLDIR:pn-updaterd = "%s"`, tools),
			fmt.Sprintf(`GOROOT:class-native:pn-updaterd-tools-native = "%s"`, s.goroot),
			fmt.Sprintf(`GOTOOLDIR:class-native:pn-updaterd-tools-native = "%s"`, tools),
			fmt.Sprintf(`GOCACHE:pn-updaterd = "%s/gocache"`, s.dir),
			fmt.Sprintf(`GOCACHE:pn-updaterd-tools-native = "%s/gocache"`, s.dir),
			`INHIBIT_PACKAGE_STRIP = "1"`,
			`INHIBIT_PACKAGE_DEBUG_SPLIT = "1"`,
			`SKIP_FILEDEPS = "1"`,
			`OBJDUMP = "aarch64-linux-gnu-objdump"`,
			fmt.Sprintf(`FAKEROOTCMD = "%s"`, shim),
			`FAKEROOTENV = ""`,
			// That is the shim's doing, and what is assumed is no dependency.
			`ERROR_QA:remove = "host-user-contaminated build-deps"`,
			`WARN_QA:remove = "host-user-contaminated build-deps"`,
		)
	}
	local = append(local, more...)
	s.write(t, name+"/conf/local.conf", strings.Join(local, "\n")+"\n", 0o644)
	for _, checkout := range []string{c.core + "/meta/conf/layer.conf", c.bitbake + "/bin/bitbake"} {
		if out, err := s.command(t.Context(), nil, "/bin/cat", checkout).CombinedOutput(); err != nil {
			t.Fatalf("uid %d, whom BitBake is run as, cannot read %s: %v %s; let all read the checkouts", nobody, checkout, err, out[max(0, len(out)-200):])
		}
	}
	return b
}

// run runs BitBake, or another program of its kind, and returns what it says.
func (b *build) run(t *testing.T, argv ...string) (string, error) {
	t.Helper()
	// More than it takes by far; but a hang must end.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
	defer cancel()
	dir := filepath.Join(b.dir, b.name)
	path := []string{dir + "/bin", b.core + "/scripts", b.bitbake + "/bin", b.goroot + "/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	cmd := b.command(ctx, []string{
		"HOME=" + dir, "PATH=" + strings.Join(path, ":"), "LANG=en_US.UTF-8",
		"BUILDDIR=" + dir, "BBPATH=" + dir,
	}, "env", argv[0])
	cmd.Args = append([]string{"env"}, argv...)
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	begin := time.Now()
	err := cmd.Run()
	t.Logf("%s: %s: %.0f s", b.series, strings.Join(argv, " "), time.Since(begin).Seconds())
	if ctx.Err() != nil {
		err = errors.Join(err, context.Cause(ctx))
	}
	return said.String(), err
}

// must is run, and ends the test unless it succeeds.
func (b *build) must(t *testing.T, argv ...string) string {
	t.Helper()
	said, err := b.run(t, argv...)
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", b.series, strings.Join(argv, " "), err, said[max(0, len(said)-6000):])
	}
	return said
}

// one is the one path in the build's directory that a pattern matches: asking
// BitBake for it takes longer.
func (b *build) one(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(b.dir, b.name, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %s matches %q, %v; want one", b.series, pattern, found, err)
	}
	return found[0]
}

// variables is what BitBake takes for those of a recipe: a name, or -b and a file, whose
// dependencies it does not look for.
func (b *build) variables(t *testing.T, recipe ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(b.must(t, append([]string{"bitbake", "-e"}, recipe...)...)) {
		name, value, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=\"")
		if found && !strings.HasPrefix(name, "#") {
			all[name] = strings.TrimSuffix(value, "\"")
		}
	}
	return all
}

// run runs a program of this machine.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, stderr.String())
	}
	return string(out)
}
