// SPDX-License-Identifier: Apache-2.0

package buildroot

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/qemu/uboot"
)

const (
	board     = "board/qemu-aarch64"
	defconfig = "configs/qemu_aarch64_updaterd_defconfig"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What U-Boot and Linux are told is what the tests in QEMU run.
func TestOneSource(t *testing.T) {
	for _, link := range []string{board + "/updaterd.config", board + "/updaterd.env", board + "/fw_env.config", "package/updaterd/check-config", "package/updaterd/environment"} {
		target, err := filepath.EvalSymlinks(link)
		if want := "../qemu/uboot/" + filepath.Base(link); err != nil || target != want {
			t.Errorf("%s is %s, %v; want a link to %s", link, target, err, want)
		}
	}
	layout := read(t, board+"/genimage.cfg")
	for _, offset := range []int{uboot.EnvOffset, uboot.EnvOffset2} {
		if want := fmt.Sprintf("offset = %#x\n\t\timage = \"uboot-env.bin\"\n", offset); strings.Count(layout, want) != 1 {
			t.Errorf("genimage.cfg does not have %q", want)
		}
	}
	if want := fmt.Sprintf("-s %#x ", uboot.EnvSize); !strings.Contains(read(t, board+"/post-image.sh"), want) {
		t.Errorf("post-image.sh does not make an environment of %q", want)
	}
}

// Every file that the defconfig and the makefiles name is there.
func TestFilesAreThere(t *testing.T) {
	named := regexp.MustCompile(`\$\(BR2_EXTERNAL_UPDATERD_PATH\)/([^" ]+)`).FindAllStringSubmatch(read(t, defconfig), -1)
	if len(named) < 5 {
		t.Fatalf("the defconfig names %d files of the tree", len(named))
	}
	for _, m := range named {
		if _, err := os.Stat(m[1]); err != nil {
			t.Errorf("%s: %v", defconfig, err)
		}
	}
}

func TestScriptsAreClean(t *testing.T) {
	shellcheck, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("skipped: no shellcheck; .ci/setup installs it")
	}
	scripts, err := filepath.Glob(board + "/*.sh")
	if err != nil || len(scripts) != 2 {
		t.Fatalf("%q, %v", scripts, err)
	}
	if out, err := exec.Command(shellcheck, append(scripts, "package/updaterd/environment")...).CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}

// stubs stand for Buildroot: what the package's makefile takes from it.
const stubs = `qstrip = $(strip $(subst ",,$(1)))
INSTALL = install
define sep


endef
golang-package =
host-golang-package =
include package/updaterd/updaterd.mk
hooks:
	$(foreach h,$(UPDATERD_POST_INSTALL_TARGET_HOOKS),$(call $(h))$(sep))
`

// TestMakefile runs what the package installs beside the programs, and what it says
// at once to who has set something wrong, without Buildroot.
func TestMakefile(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Makefile": stubs, "updaterd.toml": "compatible", "empty/README": "nothing",
		"keys/a.pem": "key", "keys/b.pub": "key", "keys/c.crt": "certificate", "keys/d.crl": "list", "keys/e.tlog": "log", "keys/README": "no key",
		"private/a.pub": "key", "private/b.pem": "-----BEGIN PRIVATE KEY-----", "certificates/c.crt": "certificate",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, text)
	}
	for name, tc := range map[string]struct{ keyring, config, want string }{
		"all":           {"keys", "updaterd.toml", "keys/a.pem keys/b.pub keys/c.crt keys/d.crl keys/e.tlog updaterd.toml"},
		"certificates":  {"certificates", "", "keys/c.crt"},
		"no keys":       {"empty", "", "is \"" + dir + "/empty\" and holds no public key"},
		"no directory":  {"lost", "", "is \"" + dir + "/lost\" and holds no public key"},
		"a private key": {"private", "", "private/b.pem\nBR2_PACKAGE_UPDATERD_KEYRING: that is a private key"},
		"no file":       {"keys", "lost.toml", "BR2_PACKAGE_UPDATERD_CONFIG is \"" + dir + "/lost.toml\", which is not there"},
	} {
		t.Run(name, func(t *testing.T) {
			target := t.TempDir()
			if err := os.MkdirAll(target+"/etc/updaterd/keys", 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, target+"/etc/updaterd/keys/withdrawn.pub", "key")
			args := []string{"make", "-s", "-f", dir + "/Makefile", "hooks", "TARGET_DIR=" + target, "BR2_PACKAGE_UPDATERD=y", "BR_BUILDING=y",
				`BR2_PACKAGE_UPDATERD_KEYRING="` + dir + "/" + tc.keyring + `"`}
			if tc.config != "" {
				args = append(args, `BR2_PACKAGE_UPDATERD_CONFIG="`+dir+"/"+tc.config+`"`)
			}
			out, err := try([]string{"MAKEFLAGS=", "MAKELEVEL="}, args...)
			if strings.Contains(tc.want, "BR2_") || strings.Contains(tc.want, " holds ") {
				if err == nil || !strings.Contains(out, tc.want) {
					t.Errorf("%v: %s\nwant %q", err, out, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			installed := run(t, nil, "sh", "-c", "cd "+target+"/etc/updaterd && find . -type f -printf '%P\\n' | sort | xargs")
			if got := strings.TrimSpace(installed); got != tc.want {
				t.Errorf("installed are %q; want %q", got, tc.want)
			}
		})
	}
}
