// SPDX-License-Identifier: Apache-2.0

package yocto

import (
	"encoding/binary"
	"hash/crc32"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/qemu/uboot"
)

// testUBoot stands for U-Boot, which cannot be built here. What it is configured
// with is the fragment itself, so all of that is in force.
const testUBoot = `# SPDX-License-Identifier: Apache-2.0
SUMMARY = "Stands for U-Boot"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"
INHIBIT_DEFAULT_DEPS = "1"
SRC_URI = "file://source;subdir=${BP}"
PACKAGE_ARCH = "${MACHINE_ARCH}"
inherit deploy nopackages
B = "${WORKDIR}/build"
do_configure() {
    mkdir -p ${B}/sub
    grep -v '@DROPPED@' ${UPDATERD_FILES}/updaterd.cfg > ${B}/sub/.config
}
do_deploy() {
    cp ${S}/updaterd.env ${DEPLOYDIR}/
}
do_deploy[dirs] = "${DEPLOYDIR}"
addtask deploy after do_compile before do_build
`

// TestUBoot: a board gets U-Boot's half of the contract, with what it sets in the
// environment; other boards get nothing; an option that was dropped stops the build.
func TestUBoot(t *testing.T) {
	all := checkouts(t)
	s := theSite(t)
	s.write(t, "layers/meta-test-uboot/conf/layer.conf", `BBPATH .= ":${LAYERDIR}"
BBFILES += "${LAYERDIR}/*.bb"
BBFILE_COLLECTIONS += "updaterd-test-uboot"
BBFILE_PATTERN_updaterd-test-uboot = "^${LAYERDIR}/"
LAYERSERIES_COMPAT_updaterd-test-uboot = "scarthgap wrynose blacksail"
`, 0o644)
	s.write(t, "layers/meta-test-uboot/files/source", "of U-Boot\n", 0o644)
	for _, c := range all {
		t.Run(c.series, func(t *testing.T) {
			name := "uboot-" + c.series
			build := func(dropped string, more ...string) *build {
				s.write(t, "layers/meta-test-uboot/u-boot_1.0.bb", strings.Replace(testUBoot, "@DROPPED@", dropped, 1), 0o644)
				s.write(t, name+"/bin/uboot-mkenvimage", "#!/bin/sh\nexec mkenvimage \"$@\"\n", 0o755)
				return s.newBuild(t, c, name, append(layerDirs, "meta-test-uboot"), true, append([]string{
					`BBMASK = "^` + regexp.QuoteMeta(c.core) + `/meta/recipes- /layers/[^/]*/recipes-kernel/"`,
					`ASSUME_PROVIDED += "u-boot-mkenvimage-native xxd-native"`,
					`HOSTTOOLS += "mkenvimage uboot-mkenvimage"`,
				}, more...)...)
			}
			// What stands for U-Boot here has no use for what U-Boot's build runs.
			for _, recipe := range []string{"recipes-bsp/u-boot/u-boot-tools.inc", "recipes-support/vim/vim_*.bb"} {
				found, err := filepath.Glob(filepath.Join(c.core, "meta", recipe))
				if err != nil || len(found) != 1 {
					t.Fatalf("%s: %q, %v", recipe, found, err)
				}
				text := read(t, found[0])
				if !strings.Contains(text, "u-boot-mkenvimage-native") && !(strings.Contains(text, `PROVIDES = "xxd"`) && strings.Contains(text, `BBCLASSEXTEND = "native`)) {
					t.Errorf("%s does not provide what the include depends on", found[0])
				}
			}
			example := []string{`MACHINE = "qemuarm64-updaterd"`, `UPDATERD_UBOOT_ENV_SET:append:pn-u-boot = "\nboot_dev=mmc 1\naltbootcmd=echo 'none'"`}

			b := build("@")
			if uri := b.variables(t, "u-boot")["SRC_URI"]; strings.Contains(uri, "updaterd") {
				t.Errorf("a board that asks for nothing has SRC_URI %q", uri)
			}

			b = build("@", example...)
			b.must(t, "bitbake", "--no-setscene", "-c", "deploy", "-f", "u-boot")
			if files, err := filepath.Glob(filepath.Join(b.dir, b.name, "tmp/work/qemuarm64_updaterd-*/u-boot/*/fw_env.config")); err != nil || len(files) == 0 {
				b.one(t, "tmp/work/qemuarm64_updaterd-*/u-boot/*/*/fw_env.config")
			}
			image, err := os.ReadFile(b.one(t, "tmp/deploy/images/qemuarm64-updaterd/updaterd-env.bin"))
			if err != nil {
				t.Fatal(err)
			}
			want, err := uboot.Default()
			if err != nil {
				t.Fatal(err)
			}
			// What is empty is not there.
			maps.DeleteFunc(want, func(_, value string) bool { return value == "" })
			delete(want, "boot_initrd")
			want["boot_dev"], want["altbootcmd"], want["env_id"] = "mmc 1", "echo 'none'", "factory"
			if got := decode(t, image); !maps.Equal(got, want) {
				t.Errorf("the environment of a factory is\n%q\nwant\n%q", got, want)
			}

			said, err := build("CONFIG_BOOTCOUNT_ENV", example...).run(t, "bitbake", "--no-setscene", "-c", "configure", "-f", "u-boot")
			if err == nil || !strings.Contains(said, "CONFIG_BOOTCOUNT_ENV is") {
				t.Errorf("an option is not in force, and the build goes on: %v\n%s", err, said)
			}
			said, err = build("@", append(example, `UPDATERD_UBOOT_ENV_SET:append:pn-u-boot = "\n boot_root=/dev/sda"`)...).run(t, "bitbake", "--no-setscene", "-c", "configure", "-f", "u-boot")
			if err == nil || !strings.Contains(said, "boot_root=/dev/sda\", which is not NAME=VALUE") {
				t.Errorf("a name has a blank before it, and the build goes on: %v\n%s", err, said)
			}
		})
	}
}

const uBootInclude = "recipes-bsp/u-boot/u-boot-updaterd.inc"

// TestUBootEnvironment runs the steps that make the environment, without BitBake:
// what U-Boot is compiled with, and what a factory writes.
func TestUBootEnvironment(t *testing.T) {
	if have := read(t, layer, uBootInclude); strings.Contains(uboot.Config, "CONFIG_DEFAULT_ENV_FILE=") && !regexp.MustCompile(`(?m)^DEPENDS:append = ".* xxd-native"$`).MatchString(have) {
		t.Error("U-Boot is to compile an environment in, for which it runs xxd, and the include does not depend on that")
	}
	if _, err := exec.LookPath("mkenvimage"); err != nil {
		t.Skip("skipped: no mkenvimage; .ci/setup installs it (u-boot-tools)")
	}
	for name, tc := range map[string]struct{ set, want, wrong string }{
		"nothing":        {"", "", ""},
		"values":         {`boot_dev=mmc 1\nboot_initrd=\n`, "boot_dev=mmc 1\nboot_initrd=\n", ""},
		"quotes":         {`boot_args=a='b "c"' ${boot_root}`, `boot_args=a='b "c"' ${boot_root}`, ""},
		"several lines":  {`bootcmd=run mine`, "bootcmd=run mine", ""},
		"a blank before": {`boot_dev=mmc 1\n boot_initrd=`, "", `" boot_initrd="`},
		"no value":       {`boot_dev`, "", `"boot_dev"`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			variables := map[string]string{"UPDATERD_UBOOT_ENV_SET": tc.set, "UPDATERD_FILES": layer + "/recipes-bsp/u-boot/files"}
			for _, name := range []string{"WORKDIR", "S", "B", "DEPLOYDIR"} {
				variables[name] = filepath.Join(dir, name)
				if err := os.MkdirAll(variables[name], 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for path, text := range map[string]string{"uboot-mkenvimage": "#!/bin/sh\nexec mkenvimage \"$@\"\n", "B/.config": uboot.Config} {
				if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			said, err := exec.Command("sh", "-c", step(t, uBootInclude, "do_configure:prepend", variables)).CombinedOutput()
			if tc.wrong != "" {
				if err == nil || !strings.Contains(string(said), tc.wrong+", which is not NAME=VALUE") {
					t.Errorf("%v: %s", err, said)
				}
				return
			} else if err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			want, err := uboot.Default(tc.want)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := uboot.Parse(read(t, variables["S"], "updaterd.env")); err != nil || !maps.Equal(got, want) {
				t.Errorf("U-Boot is compiled with %q, %v; want %q", got, err, want)
			}
			deploy := exec.Command("sh", "-c", step(t, uBootInclude, "do_deploy:append", variables))
			deploy.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			if said, err := deploy.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			maps.DeleteFunc(want, func(_, value string) bool { return value == "" })
			want["env_id"] = "factory"
			if got := decode(t, []byte(read(t, variables["DEPLOYDIR"], "updaterd-env.bin"))); !maps.Equal(got, want) {
				t.Errorf("a factory writes %q; want %q", got, want)
			}
		})
	}
}

// decode reads one copy of a redundant environment.
func decode(t *testing.T, image []byte) map[string]string {
	t.Helper()
	if len(image) != uboot.EnvSize || binary.LittleEndian.Uint32(image) != crc32.ChecksumIEEE(image[5:]) {
		t.Fatalf("%d bytes, or the checksum is wrong; want %d", len(image), uboot.EnvSize)
	}
	vars, _, _ := strings.Cut(string(image[5:]), "\x00\x00")
	env := map[string]string{}
	for variable := range strings.SplitSeq(vars, "\x00") {
		name, value, _ := strings.Cut(variable, "=")
		if value != "" {
			env[name] = value
		}
	}
	return env
}
