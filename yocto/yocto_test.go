// SPDX-License-Identifier: Apache-2.0

// Package yocto has the tests of the layers: what a checkout of this project
// shows, and, if there are checkouts of OE-core and BitBake, what BitBake does
// with them.
package yocto

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/qemu/uboot"
)

// layer has the recipes and the class; board is an example of a board.
const (
	layer = "meta-updaterd"
	board = "meta-updaterd-qemu"
)

var layerDirs = []string{layer, board}

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// walk calls visit for each file and link of both layers.
func walk(t *testing.T, visit func(path string, d fs.DirEntry)) {
	t.Helper()
	for _, dir := range layerDirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				visit(path, d)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// bootFiles are those of U-Boot, which must be those that the tests in QEMU run.
var bootFiles = map[string]string{
	"check-config":            "check-config",
	"environment":             "environment",
	"updaterd.env":            "updaterd.env",
	"qemuarm64/updaterd.cfg":  "updaterd.config",
	"qemuarm64/fw_env.config": "fw_env.config",
}

func TestBootFilesAreThoseOfQEMU(t *testing.T) {
	dir := filepath.Join(layer, "recipes-bsp/u-boot/files")
	for name, source := range bootFiles {
		// The same file, not one with the same content: nobody has to remember.
		got, err := filepath.EvalSymlinks(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if want := filepath.Join("../qemu/uboot", source); got != want {
			t.Errorf("%s is %s; want a link to %s", name, got, want)
		}
	}
	for _, name := range tree(t, dir) {
		if _, ok := bootFiles[strings.TrimPrefix(name, "/")]; !ok {
			t.Errorf("%s%s is not known here", dir, name)
		}
	}
}

func TestLinksAndHeads(t *testing.T) {
	walk(t, func(path string, d fs.DirEntry) {
		if d.Type() == fs.ModeSymlink {
			target, err := os.Readlink(path)
			if _, statErr := os.Stat(path); err != nil || statErr != nil || filepath.IsAbs(target) {
				t.Errorf("link %s to %q: %v %v", path, target, err, statErr)
			}
			return
		}
		switch filepath.Ext(path) {
		case ".md", ".pub":
		default:
			if head, _, _ := strings.Cut(read(t, path), "\n"); head != "# SPDX-License-Identifier: Apache-2.0" {
				t.Errorf("%s begins with %q", path, head)
			}
		}
		if strings.Contains(read(t, path), "PRIVATE KEY-----") {
			t.Errorf("%s is a private key", path)
		}
	})
}

// TestLayerForm is what yocto-check-layer looks at before it runs BitBake.
func TestLayerForm(t *testing.T) {
	for _, dir := range layerDirs {
		conf := read(t, dir, "conf/layer.conf")
		if !regexp.MustCompile(`(?m)^LAYERSERIES_COMPAT_\S+ = "scarthgap wrynose blacksail"$`).MatchString(conf) {
			t.Errorf("%s: LAYERSERIES_COMPAT is not that of all layers", dir)
		}
		readme := strings.ToLower(read(t, dir, "README.md"))
		for _, want := range []string{"maintainer", "patch", "@", "scarthgap"} {
			if !strings.Contains(readme, want) {
				t.Errorf("%s/README.md says nothing about %q", dir, want)
			}
		}
		for _, name := range []string{"SECURITY.md", "COPYING"} {
			if read(t, dir, name) == "" {
				t.Errorf("%s/%s is empty", dir, name)
			}
		}
	}
}

// TestSettingsAreDocumented: what the class lets one set is in the README.
func TestSettingsAreDocumented(t *testing.T) {
	readme := read(t, layer, "README.md")
	found := regexp.MustCompile(`(?m)^(UPDATERD_\w+) \?\??= `)
	count := 0
	for _, file := range []string{
		"classes-recipe/updaterd-bundle.bbclass", "classes-global/updaterd-sanity.bbclass",
		"recipes-core/updaterd/updaterd-conf_1.0.bb", "recipes-core/updaterd/updaterd-release.inc", "recipes-bsp/u-boot/u-boot-updaterd.inc",
	} {
		for _, m := range found.FindAllStringSubmatch(read(t, layer, file), -1) {
			count++
			if !strings.Contains(readme, m[1]) {
				t.Errorf("README.md does not tell of %s (%s)", m[1], file)
			}
		}
	}
	if count < 20 {
		t.Errorf("found %d settings; this test looks for the wrong thing", count)
	}
}

// option is one that wic knows, in all series.
var option = regexp.MustCompile(`^(--(source|part-name|part-type|sourceparams|align|fixed-size|fstype|label|offset|ptable)(=.*)?|--no-table)$`)

// TestLayouts reads the layouts of disks as wic does, as far as they go.
func TestLayouts(t *testing.T) {
	class := read(t, layer, "classes-recipe/updaterd-bundle.bbclass")
	env := map[string]int{}
	for _, name := range []string{"UPDATERD_ENV_OFFSET", "UPDATERD_ENV_OFFSET_REDUND"} {
		m := regexp.MustCompile(`(?m)^` + name + ` \?\?= "(\d+)K"$`).FindStringSubmatch(class)
		if m == nil {
			t.Fatalf("the class does not set %s", name)
		}
		env[name], _ = strconv.Atoi(m[1])
	}
	if env["UPDATERD_ENV_OFFSET"]*1024 != uboot.EnvOffset || env["UPDATERD_ENV_OFFSET_REDUND"]*1024 != uboot.EnvOffset2 {
		t.Errorf("the class has the environment at %v KiB, U-Boot's configuration at %#x and %#x", env, uboot.EnvOffset, uboot.EnvOffset2)
	}
	files, err := filepath.Glob(filepath.Join(layer, "files/wic/*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("layouts: %v, %v; want two", files, err)
	}
	for _, file := range files {
		var parts, sizes []string
		for n, line := range strings.Split(read(t, file), "\n") {
			line, _, _ = strings.Cut(line, "#")
			words := strings.Fields(line)
			if len(words) == 0 {
				continue
			}
			if words[0] != "part" && words[0] != "bootloader" {
				t.Errorf("%s:%d: %q is no command", file, n+1, words[0])
			}
			values := map[string]string{}
			for i := 1; i < len(words); i++ {
				if !option.MatchString(words[i]) {
					t.Errorf("%s:%d: %q is no option", file, n+1, words[i])
					continue
				}
				name, value, joined := strings.Cut(words[i], "=")
				if !joined && name != "--no-table" && i+1 < len(words) {
					i++
					value = words[i]
				}
				values[name] = value
			}
			if name := values["--part-name"]; name != "" {
				parts = append(parts, name)
				sizes = append(sizes, values["--fixed-size"])
				if values["--align"] != "2048" {
					t.Errorf("%s:%d: %s is not aligned", file, n+1, name)
				}
			}
		}
		if want := []string{"rootfs_a", "rootfs_b", "data"}; !slices.Equal(parts, want) || sizes[0] != sizes[1] {
			t.Errorf("%s: partitions %q of %q; want %q, the first two alike", file, parts, sizes, want)
		}
	}
}

// TestInstalledFiles: what the Makefile installs is what the packages hold, so
// nothing is forgotten, and BitBake is not the first to notice.
func TestInstalledFiles(t *testing.T) {
	root, binary := filepath.Join(t.TempDir(), "a root"), filepath.Join(t.TempDir(), "a binary")
	install := func() (string, error) {
		cmd := exec.Command("make", "-s", "-C", "..", "install", "DESTDIR="+root, "BINARY="+binary, "INIT=systemd sysvinit")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := install(); err == nil || !strings.Contains(out, "no device binary "+binary) {
		t.Errorf("without a device binary: %v\n%s", err, out)
	}
	if _, err := os.Stat(root); err == nil {
		t.Error("without a device binary, something was installed")
	}
	run(t, "cp", "/bin/true", binary)
	if out, err := install(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	want := []string{"/etc/init.d/updaterd"} // with sysvinit
	for _, files := range wantPackages {
		for _, f := range files {
			if !strings.HasSuffix(f, ".preset") { // BitBake makes it
				want = append(want, f)
			}
		}
	}
	slices.Sort(want)
	if have := tree(t, root); !slices.Equal(have, want) {
		t.Errorf("make install installs\n%s\nthe packages have\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

// TestReleaseSums: a release is one step for all recipes.
func TestReleaseSums(t *testing.T) {
	dir := t.TempDir()
	run(t, "cp", "-RL", layer, dir)
	files := map[string]string{
		"b/updaterd.mk":   "UPDATERD_VERSION = 0.1.0\nUPDATERD_SITE = x\n",
		"b/updaterd.hash": "# sums\nsha256  " + strings.Repeat("0", 64) + "  updaterd-0.1.0-go2.tar.gz\nsha256  " + strings.Repeat("1", 64) + "  LICENSE\n",
		"updaterd.tar.gz": "a release",
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sum := fmt.Sprintf("%x", digest(t, filepath.Join(dir, "updaterd.tar.gz")))
	for range 2 { // again changes nothing
		run(t, "../.ci/release-sums", "1.2.3-rc1", filepath.Join(dir, "updaterd.tar.gz"), dir)
		recipes := filepath.Join(dir, layer, "recipes-core/updaterd")
		for _, name := range []string{"updaterd_1.2.3-rc1.bb", "updaterd-tools-native_1.2.3-rc1.bb"} {
			read(t, recipes, name)
		}
		if !strings.Contains(read(t, recipes, "updaterd-release.inc"), "\nSRC_URI[sha256sum] = \""+sum+"\"\n") {
			t.Error("the recipes do not have the sum")
		}
		if got := read(t, dir, "b/updaterd.mk"); got != "UPDATERD_VERSION = 1.2.3-rc1\nUPDATERD_SITE = x\n" {
			t.Errorf("updaterd.mk is\n%s", got)
		}
		if got := read(t, dir, "b/updaterd.hash"); got != "# sums\nsha256  "+sum+"  updaterd-1.2.3-rc1-go2.tar.gz\nsha256  "+strings.Repeat("1", 64)+"  LICENSE\n" {
			t.Errorf("updaterd.hash is\n%s", got)
		}
	}
	if out, err := exec.Command("../.ci/release-sums", "v1", filepath.Join(dir, "updaterd.tar.gz"), dir).CombinedOutput(); err == nil {
		t.Errorf("a version that is none was taken:\n%s", out)
	}
}

// TestShellScripts: shellcheck has nothing to say about what is run by a shell.
func TestShellScripts(t *testing.T) {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skipf("skipped: shellcheck is not installed; .ci/setup installs it")
	}
	var scripts []string
	for _, dir := range []string{"../.ci", "../buildroot", "../packaging", "../qemu/uboot", "../updaterd/data", "."} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) || err == nil && !d.Type().IsRegular() {
				return nil
			} else if err != nil {
				return err
			}
			head, _, _ := bytes.Cut([]byte(read(t, path)), []byte("\n"))
			if regexp.MustCompile(`^#!.*\b(ba|da)?sh\b`).Match(head) {
				scripts = append(scripts, path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(scripts) < 4 {
		t.Fatalf("found %q; this test looks in the wrong places", scripts)
	}
	if out, err := exec.Command("shellcheck", scripts...).CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}
