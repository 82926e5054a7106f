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
