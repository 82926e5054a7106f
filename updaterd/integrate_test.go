// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bootctl/cli"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/updaterd/ctl"
	"github.com/updaterd/updaterd/updaterd/internal/check"
	"github.com/updaterd/updaterd/updaterd/internal/config"
)

const integratePage = "../docs/integrate.md"

func readPage(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A block is code of the page with the mark before it, such as "script: key".
type block struct{ kind, name, code string }

var blockPattern = regexp.MustCompile("(?ms)^(?:<!-- (script|file|vars): ([^\n]*) -->\n)?```([a-z]*)\n(.*?)\n```$")

func blocks(t *testing.T) (list []block) {
	t.Helper()
	for _, m := range blockPattern.FindAllStringSubmatch(readPage(t, integratePage), -1) {
		kind := m[1]
		if kind == "" {
			kind = "on the device: " + m[3]
		}
		list = append(list, block{kind, m[2], m[4] + "\n"})
	}
	return list
}

// TestIntegratePage types what the page tells to type on a build host, in order.
func TestIntegratePage(t *testing.T) {
	if lacks := missing("mke2fs", "debugfs", "mkenvimage", "genimage", "veritysetup", "cpio"); lacks != "" {
		t.Skipf("skipped: no %s; .ci/setup installs it", lacks)
	}
	bin, work := t.TempDir(), t.TempDir()
	build := exec.Command("go", "build", "-o", bin+"/", "./", "../bundle/cmd/updater-bundle", "../sign/cmd/updater-sign")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Symlink("updaterd", filepath.Join(bin, "updater-bootctl")); err != nil {
		t.Fatal(err)
	}
	// What the page takes from the source.
	for _, name := range []string{"updaterd.env", "updaterd.config", "check-config", "environment"} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(readPage(t, "../qemu/uboot/"+name)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(work, "u-boot"), 0o755); err != nil {
		t.Fatal(err)
	}
	// What each script must print.
	says := map[string]string{"look": "factory-1", "bundle": "good: version 2.0", "boot class": "boot", "verity": "image boot", "factory": "", "plain environment": "", "plain check": ""}
	ran := map[string]bool{}
	for _, b := range blocks(t) {
		switch b.kind {
		case "file":
			if err := os.WriteFile(filepath.Join(work, b.name), []byte(b.code), 0o755); err != nil {
				t.Fatal(err)
			}
			checkFile(t, work, b)
		case "script":
			sh := exec.CommandContext(t.Context(), "sh", "-euc", b.code)
			sh.Dir = work
			sh.Env = []string{"PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + work}
			out, err := sh.CombinedOutput()
			if err != nil || !strings.Contains(string(out), says[b.name]) {
				t.Fatalf("script %q: %v\n%s", b.name, err, out)
			}
			ran[b.name] = true
			if b.name == "plain environment" { // what stands for U-Boot's build
				buildUBoot(t, filepath.Join(work, "u-boot"))
			}
		}
	}
	for name := range says {
		if !ran[name] {
			t.Errorf("the page has no script %q", name)
		}
	}
	checkDelta(t, bin, work)
	tryHook(t, work)
}

// buildUBoot leaves a .config in which all of the fragment is in force, and looks
// whether the fragment is that of a board: nothing of QEMU's, and the environment
// where board.env and fw_env.config of the page have it.
func buildUBoot(t *testing.T, dir string) {
	t.Helper()
	fragment := readPage(t, filepath.Join(dir, "board.config"))
	if err := os.WriteFile(filepath.Join(dir, ".config"), []byte(fragment), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"CONFIG_SYS_MMC_ENV_DEV=1", "CONFIG_ENV_MMC_DEVICE_INDEX=1", "CONFIG_ENV_OFFSET_REDUND=0x108000", "CONFIG_BOOTCOUNT_ENV=y", "CONFIG_CMD_EXT4=y", `CONFIG_DEFAULT_ENV_FILE="updaterd.env"`} {
		if !strings.Contains(fragment, "\n"+line+"\n") {
			t.Errorf("board.config has no line %s", line)
		}
	}
	for _, qemus := range []string{"PCI", "SDHCI", "CONSOLE_FLUSH", "USB", "EFI_LOADER", "BOOTDELAY"} {
		if strings.Contains(fragment, qemus) {
			t.Errorf("board.config has an option of QEMU's board: %s", qemus)
		}
	}
	env, err := uboot.ReadText(filepath.Join(dir, "updaterd.env"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"boot_dev": "mmc 1", "boot_fdt": "/boot/my-board.dtb", "boot_cmd": "booti"} {
		if got := env.Get(name); got != want {
			t.Errorf("U-Boot is compiled with %s=%s, want %s", name, got, want)
		}
	}
}

// missing is the first of programs that is not there, or "".
func missing(programs ...string) string {
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			return name
		}
	}
	return ""
}

// checkFile looks at a file as the program that reads it does.
func checkFile(t *testing.T, work string, b block) {
	t.Helper()
	var err error
	switch {
	case strings.HasSuffix(b.name, ".toml"):
		_, err = config.Parse([]byte(b.code))
	case b.name == "fw_env.config":
		var places uboot.Config
		if places, _, err = uboot.ParseConfig([]byte(b.code)); err == nil && len(places) != 2 {
			err = fmt.Errorf("%d copies", len(places))
		}
	case strings.HasSuffix(b.name, ".env"):
		// Each must be a variable that the boot commands use.
		known := readPage(t, "../qemu/uboot/updaterd.env")
		for line := range strings.Lines(b.code) {
			if name, _, ok := strings.Cut(line, "="); !ok || !strings.Contains(known, "\n"+name+"=") {
				t.Errorf("%s: updaterd.env has no variable %q", b.name, name)
			}
		}
		_, err = uboot.ReadText(filepath.Join(work, b.name))
	case b.name == "initramfs-hook", b.name == "initramfs-open", b.name == "migrate-data":
		err = exec.Command("sh", "-n", filepath.Join(work, b.name)).Run()
	}
	if err != nil {
		t.Errorf("%s: %v", b.name, err)
	}
}

// checkDelta: the second release costs little, and the build has no bad habit.
func checkDelta(t *testing.T, bin, work string) {
	t.Helper()
	diff := exec.Command(filepath.Join(bin, "updater-bundle"), "diff", "rootfs-1.0.ext4", "rootfs-2.0.ext4")
	diff.Dir = work
	out, err := diff.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("differs (")) || bytes.Contains(out, []byte("  mounted")) || bytes.Contains(out, []byte("  resized")) {
		t.Errorf("diff: %v\n%s", err, out)
	}
	// The inode has another change time then; none of it may be in the image.
	if err := os.Chmod(filepath.Join(work, "rootfs", "etc", "motd"), 0o644); err != nil {
		t.Fatal(err)
	}
	again := exec.Command("./mkimage", "rootfs", "again.ext4")
	again.Dir = work
	if out, err := again.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	a, b := readPage(t, filepath.Join(work, "rootfs-2.0.ext4")), readPage(t, filepath.Join(work, "again.ext4"))
	if a != b {
		t.Error("the same directory gave another image")
	}
}

// tryHook runs the page's hook twice, and after a cut in it.
func tryHook(t *testing.T, work string) {
	t.Helper()
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "settings.ini"), []byte("color=blue\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "settings.json.new"), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		hook := exec.Command(filepath.Join(work, "migrate-data"), data)
		hook.Env = []string{"PATH=/usr/bin:/bin", "UPDATERD_NEW_VERSION=2.0"}
		if out, err := hook.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got := readPage(t, filepath.Join(data, "settings.json")); got != "{\"color\": \"blue\"}\n" {
			t.Errorf("migrated to %q", got)
		}
	}
}

// TestIntegrateCommands: what is to be typed on a device are commands and options
// that there are.
func TestIntegrateCommands(t *testing.T) {
	programs := map[string]func(args []string, out *bytes.Buffer) int{
		"updaterctl": func(args []string, out *bytes.Buffer) int {
			return ctl.Run("test", args, strings.NewReader(""), out, out)
		},
		"updater-bootctl": func(args []string, out *bytes.Buffer) int { return cli.Run("test", args, out, out) },
		"updaterd":        func(args []string, out *bytes.Buffer) int { return run(args, out, out) },
	}
	found := 0
	for _, b := range blocks(t) {
		for line := range strings.Lines(b.code) {
			words := strings.Fields(line)
			if len(words) < 2 || programs[words[0]] == nil {
				continue
			}
			command := words[slices.IndexFunc(words[1:], func(w string) bool { return regexp.MustCompile(`^[a-z][a-z-]+$`).MatchString(w) })+1]
			if words[1] == "--config" {
				command = words[3]
			}
			found++
			var out bytes.Buffer
			if code := programs[words[0]]([]string{"help", command}, &out); code != 0 {
				t.Errorf("%s: %s", strings.TrimSpace(line), &out)
			}
			for _, w := range words[2:] {
				if name, _, _ := strings.Cut(w, "="); strings.HasPrefix(w, "--") && name != "--config" && !strings.Contains(out.String(), name) {
					t.Errorf("%s: there is no option %s", strings.TrimSpace(line), name)
				}
			}
		}
	}
	if found < 8 {
		t.Errorf("only %d commands were found", found)
	}
	// The variables of the layer are those that it has.
	layer := ""
	for _, path := range []string{"classes-recipe/updaterd-bundle.bbclass", "recipes-core/updaterd/updaterd-conf_1.0.bb", "recipes-bsp/u-boot/u-boot-updaterd.inc", "README.md"} {
		layer += readPage(t, "../yocto/meta-updaterd/"+path)
	}
	for _, b := range blocks(t) {
		for _, name := range regexp.MustCompile(`(?m)^UPDATERD_\w+`).FindAllString(b.code, -1) {
			if b.kind == "vars" && !strings.Contains(layer, name) {
				t.Errorf("meta-updaterd has no variable %s", name)
			}
		}
	}
}

// TestIntegrateChecks: the page's checklist is the one that check-config runs.
func TestIntegrateChecks(t *testing.T) {
	_, c := fitting(t)
	_, rest, _ := strings.Cut(readPage(t, integratePage), "\n| check | looks at |")
	table, _, _ := strings.Cut(rest, "\n\n")
	for _, k := range checksOf(c, elsewhere) {
		if !strings.Contains(table, "`"+k.Name+"`") {
			t.Errorf("the page does not tell of the check %q", k.Name)
		}
	}
	for _, m := range regexp.MustCompile("`([a-z][^`]*)`").FindAllStringSubmatch(regexp.MustCompile(`(?m)^\| (.*?) \|`).FindString(table), -1) {
		if !slices.ContainsFunc(checksOf(c, elsewhere), func(k check.Check) bool { return k.Name == m[1] }) && !strings.Contains(m[1], "…") {
			t.Errorf("there is no check %q", m[1])
		}
	}
}

var (
	linkPattern   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headPattern   = regexp.MustCompile(`(?m)^#+ (.*)$`)
	anchorIgnored = regexp.MustCompile("[^a-z0-9 _-]")
)

// anchors are those of a page's headings, as GitHub makes them.
func anchors(page string) map[string]bool {
	list := map[string]bool{}
	for _, m := range headPattern.FindAllStringSubmatch(page, -1) {
		text := anchorIgnored.ReplaceAllString(strings.ToLower(m[1]), "")
		list[strings.ReplaceAll(text, " ", "-")] = true
	}
	return list
}

// TestIntegrateLinks: what the page leads to is there, and the README leads to it.
func TestIntegrateLinks(t *testing.T) {
	if !strings.Contains(readPage(t, "../README.md"), "(docs/integrate.md)") {
		t.Error("README.md does not lead to docs/integrate.md")
	}
	for page, rest := range map[string]string{integratePage: "", "../docs/errors.md": "integrate.md"} {
		text := readPage(t, page)
		for _, m := range linkPattern.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || !strings.HasPrefix(m[1], rest) {
				continue
			}
			path := page
			if target != "" {
				path = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %v", page, err)
			} else if anchor != "" && !anchors(readPage(t, path))[anchor] {
				t.Errorf("%s: %s has no heading for #%s", page, path, anchor)
			}
		}
	}
	// Files that are only named.
	for _, m := range regexp.MustCompile("`((?:qemu|yocto|buildroot|docs)/[A-Za-z0-9_./-]+)`").FindAllStringSubmatch(readPage(t, integratePage), -1) {
		if top, _, _ := strings.Cut(m[1], "/"); top == "buildroot" {
			if _, err := os.Stat("../buildroot"); err != nil {
				t.Log("skipped: there is no buildroot/")
				continue
			}
		}
		if _, err := os.Stat("../" + m[1]); err != nil {
			t.Error(err)
		}
	}
}
