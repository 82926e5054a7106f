// SPDX-License-Identifier: Apache-2.0

package buildroot

import (
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/updaterd/updaterd/qemu/uboot"
)

// A checkout is Buildroot, which is only read, with an output directory.
type checkout struct {
	dir, out string
	// keyring is UPDATERD_KEYRING.
	keyring string
}

// newCheckout loads the example's configuration with the external tree in dir.
func newCheckout(t *testing.T, external string) *checkout {
	t.Helper()
	dir := os.Getenv("BUILDROOT_DIR")
	if dir == "" {
		t.Skip("skipped: no Buildroot checkout (BUILDROOT_DIR)")
	}
	external, err := filepath.Abs(external)
	if err != nil {
		t.Fatal(err)
	}
	b := &checkout{dir: dir, out: t.TempDir(), keyring: t.TempDir()}
	write(t, b.keyring+"/release.pub", "a stand-in for a public key\n")
	b.make(t, "BR2_EXTERNAL="+external, filepath.Base(defconfig))
	return b
}

// make runs Buildroot. The machine's programs may stand in for what it would build first.
func (b *checkout) make(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.try(args...)
	if err != nil {
		t.Fatalf("make %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (b *checkout) try(args ...string) (string, error) {
	args = append([]string{"-s", "-C", b.dir, "-o", "dependencies", "O=" + b.out}, args...)
	// A make that runs this test must not have a say.
	return try([]string{"UPDATERD_KEYRING=" + b.keyring, "MAKEFLAGS=", "MAKELEVEL=", "MFLAGS="}, append([]string{"make"}, args...)...)
}

// Every option of the example is one that this Buildroot knows and allows.
func TestDefconfig(t *testing.T) {
	b := newCheckout(t, ".")
	loaded := strings.Split(read(t, b.out+"/.config"), "\n")
	for line := range strings.Lines(read(t, defconfig)) {
		if line = strings.TrimSpace(line); !slices.Contains(loaded, line) {
			t.Errorf("%s is not kept", line)
		}
	}
	if !slices.Contains(loaded, "BR2_PACKAGE_UPDATERD_CHECK_UBOOT=y") {
		t.Error("U-Boot's configuration is not checked")
	}
}

func TestCheckPackage(t *testing.T) {
	dir := os.Getenv("BUILDROOT_DIR")
	if dir == "" {
		t.Skip("skipped: no Buildroot checkout (BUILDROOT_DIR)")
	}
	if out, err := try(nil, "/usr/bin/python3", "-c", "import magic"); err != nil {
		t.Skipf("skipped: check-package needs the package python3-magic; .ci/setup installs it: %s", out)
	}
	args := []string{"/usr/bin/python3", dir + "/utils/check-package", "-b"}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if !d.IsDir() && filepath.Ext(path) != ".go" {
			args = append(args, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// The init script, which the package installs under a name of Buildroot's.
	script := t.TempDir() + "/S80updaterd"
	write(t, script, read(t, "../updaterd/data/updaterd.init"))
	out, err := try(nil, append(args, script)...)
	if err != nil || !strings.Contains(out, "\n0 warnings generated") {
		t.Errorf("%v\n%s", err, out)
	}
}

// What Buildroot makes of the package's makefile.
func TestPackage(t *testing.T) {
	b := newCheckout(t, ".")
	info := b.make(t, "updaterd-show-info")
	for _, want := range []string{`"version":"0.1.0"`, `"dl_dir":"updaterd"`, `"source":"updaterd-0.1.0.tar.gz"`, `"host-go"`} {
		if !strings.Contains(strings.ReplaceAll(info, `": "`, `":"`), want) {
			t.Errorf("show-info has no %s: %s", want, info)
		}
	}
	vars := b.make(t, "printvars", "VARS=GO_GOARCH UPDATERD_CONFIG UPDATERD_KEYRING_DIR UBOOT_PRE_BUILD_HOOKS UBOOT_KCONFIG_FRAGMENT_FILES UPDATERD_UBOOT_ENV HOST_UPDATERD_SOURCE")
	tree, err := filepath.Abs(board)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"GO_GOARCH=arm64", "UPDATERD_CONFIG=" + tree + "/updaterd.toml", "UPDATERD_KEYRING_DIR=" + b.keyring,
		"UBOOT_KCONFIG_FRAGMENT_FILES=" + tree + "/updaterd.config", "UPDATERD_UBOOT_ENV=" + tree + "/updaterd.env " + tree + "/board.env", "HOST_UPDATERD_SOURCE=updaterd-0.1.0.tar.gz"} {
		if !strings.Contains("\n"+vars, "\n"+want+"\n") {
			t.Errorf("printvars has no %s:\n%s", want, vars)
		}
	}
	for _, hook := range []string{"UPDATERD_PREPARE_UBOOT", "UPDATERD_CHECK_UBOOT"} {
		if !slices.Contains(strings.FieldsFunc(vars, func(r rune) bool { return strings.ContainsRune("= \n", r) }), hook) {
			t.Errorf("hook %s is not among those of U-Boot:\n%s", hook, vars)
		}
	}
	// Nobody should wait for hours to hear that.
	b.keyring = ""
	if out, err := b.try("updaterd-show-info"); err == nil || !strings.Contains(out, "holds no public key") {
		t.Errorf("without a key: %v, %s", err, out)
	}
}

// standIns puts the machine's programs where Buildroot would have built its own.
func (b *checkout) standIns(t *testing.T) {
	t.Helper()
	root := strings.TrimSpace(run(t, nil, "go", "env", "GOROOT"))
	tar, err := exec.LookPath("tar")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/host/bin", "/host/lib"} {
		if err := os.MkdirAll(b.out+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"/host/lib/go": root, "/host/bin/go": root + "/bin/go", "/host/bin/tar": tar} {
		if err := os.Symlink(target, b.out+link); err != nil {
			t.Fatal(err)
		}
	}
}

// without makes a package depend on nothing that would have to be built.
func without(packages ...string) []string {
	var args []string
	for _, p := range packages {
		for _, kind := range []string{"", "FINAL_", "FINAL_ALL_", "FINAL_DOWNLOAD_", "FINAL_EXTRACT_", "FINAL_PATCH_"} {
			args = append(args, p+"_"+kind+"DEPENDENCIES=")
		}
	}
	return args
}

// release makes the tarball of what is committed, and an external tree with its sum.
func release(t *testing.T) (downloads, external string) {
	t.Helper()
	dir := t.TempDir()
	run(t, nil, "git", "clone", "-q", "--shared", "..", dir+"/clone")
	run(t, []string{"MAKEFLAGS=", "MAKELEVEL="}, "make", "-s", "-C", dir+"/clone", "-o", "setup", "dist", "VERSION=0.1.0")
	downloads, external = dir+"/dl", dir+"/external"
	const name = "updaterd-0.1.0.tar.gz"
	run(t, nil, "sh", "-c", "mkdir -p "+downloads+"/updaterd && mv "+dir+"/clone/dist/"+name+" "+downloads+"/updaterd/ && cp -rL . "+external)
	tarball, err := os.ReadFile(downloads + "/updaterd/" + name)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(read(t, hashFile), "\n")
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasSuffix(l, "  "+name) })
	if at < 0 {
		t.Fatalf("%s has no sum of %s", hashFile, name)
	}
	lines[at] = fmt.Sprintf("sha256  %x  %s", sha256.Sum256(tarball), name)
	write(t, external+"/"+hashFile, strings.Join(lines, "\n"))
	return downloads, external
}

// TestBuild lets Buildroot build and install its package from the release
// tarball, without a network: the machine's Go stands in for the one that it would build.
func TestBuild(t *testing.T) {
	if os.Getenv("BUILDROOT_DIR") == "" {
		t.Skip("skipped: no Buildroot checkout (BUILDROOT_DIR)")
	}
	downloads, external := release(t)
	b := newCheckout(t, external)
	b.standIns(t)
	cache := strings.TrimSpace(run(t, nil, "go", "env", "GOCACHE"))
	args := append(without("UPDATERD", "HOST_UPDATERD"), "BR2_DL_DIR="+downloads, "BR2_PRIMARY_SITE_ONLY=y", "HOST_GO_TARGET_CACHE="+cache, "HOST_GO_HOST_CACHE="+cache)
	b.make(t, append(args, "updaterd-install-target")...)

	target := b.out + "/target"
	want := t.TempDir()
	run(t, nil, "make", "-s", "-C", "..", "install", "BINARY="+target+"/usr/bin/updaterd", "DESTDIR="+want, "INIT=sysvinit", "INITSCRIPT=S80updaterd")
	run(t, nil, "sh", "-c", "cp "+board+"/updaterd.toml "+want+"/etc/updaterd/ && cp "+b.keyring+"/* "+want+"/etc/updaterd/keys/")
	if diff := cmp.Diff(files(t, want), files(t, target)); diff != "" {
		t.Errorf("the package installs something else than make install: %s", diff)
	}
	binary, err := elf.Open(target + "/usr/bin/updaterd")
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	if binary.Machine != elf.EM_AARCH64 || binary.Section(".interp") != nil {
		t.Errorf("the device binary is for %v, or not static", binary.Machine)
	}
	// A key that was withdrawn leaves the image at the next build.
	write(t, b.keyring+"/other.pem", "another\n")
	if err := os.Remove(b.keyring + "/release.pub"); err != nil {
		t.Fatal(err)
	}
	// With systemd; the configuration is not asked what else that would need.
	b.make(t, append(args, "BR2_INIT_SYSTEMD=y", "BR2_INIT_BUSYBOX=", "updaterd-reinstall")...)
	got := files(t, target)
	for _, name := range []string{"/usr/lib/systemd/system/updaterd.service", "/usr/lib/systemd/system/sysinit.target.wants/updaterd-trial.service", "/usr/share/dbus-1/system-services/org.updaterd.Updater1.service", "/etc/updaterd/keys/other.pem"} {
		if _, found := got[name]; !found {
			t.Errorf("with systemd there is no %s", name)
		}
	}
	if _, found := got["/etc/updaterd/keys/release.pub"]; found {
		t.Error("a key that was withdrawn is still in the image")
	}

	b.make(t, append(args, "host-updaterd")...)
	want = t.TempDir()
	run(t, nil, "make", "-s", "-C", "..", "install-tools", "TOOLS="+b.out+"/host/bin", "PREFIX="+want)
	have := files(t, b.out+"/host")
	for name, sum := range files(t, want) {
		if have[name] != sum {
			t.Errorf("the host has no %s, or another one", name)
		}
	}
	if out := run(t, nil, b.out+"/host/bin/updater-bundle", "--version"); out != "updater-bundle 0.1.0\n" {
		t.Errorf("the host's tool says %q", out)
	}
}

// files are those below dir with what they are.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	list := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, dir)
		if d.Type() == fs.ModeSymlink {
			list[name], err = os.Readlink(path)
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		list[name] = fmt.Sprintf("%v %x", info.Mode(), sha256.Sum256(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestUBoot runs the hooks on what U-Boot's build would have unpacked and configured.
func TestUBoot(t *testing.T) {
	b := newCheckout(t, ".")
	b.standIns(t)
	dir := strings.TrimPrefix(strings.TrimSpace(b.make(t, "printvars", "VARS=UBOOT_DIR")), "UBOOT_DIR=")
	board, err := filepath.Abs(board)
	if err != nil {
		t.Fatal(err)
	}
	mine := t.TempDir() + "/board.env"
	build := func(config string) (string, error) {
		for _, stamp := range []string{"downloaded", "extracted", "patched", "dotconfig", "kconfig_fixup_done", "configured"} {
			write(t, dir+"/.stamp_"+stamp, "")
		}
		write(t, dir+"/.config", config)
		if err := os.RemoveAll(dir + "/.stamp_built"); err != nil {
			t.Fatal(err)
		}
		return b.try(append(without("UBOOT"), "UBOOT_BUILD_CMDS=cp "+dir+"/updaterd.env "+dir+"/compiled", "UBOOT_KCONFIG_DEPENDENCIES=",
			"BR2_PACKAGE_UPDATERD_UBOOT_ENV="+board+"/updaterd.env "+mine, "uboot-build")...)
	}
	// What is edited after the first build is in the second one.
	for _, edited := range []string{"", "boot_dev=mmc 1\n"} {
		text := read(t, board+"/board.env") + edited
		write(t, mine, text)
		if out, err := build(uboot.Config); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		got, err := uboot.Parse(read(t, dir+"/compiled"))
		if err != nil {
			t.Fatal(err)
		}
		want, err := uboot.Default(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("U-Boot's default environment: %s", diff)
		}
	}
	if out, err := build(strings.Replace(uboot.Config, "CONFIG_BOOTCOUNT_LIMIT=y\n", "", 1)); err == nil || !strings.Contains(out, "CONFIG_BOOTCOUNT_LIMIT is") {
		t.Errorf("without the boot counter: %v\n%s", err, out)
	}
}
