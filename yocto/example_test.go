// SPDX-License-Identifier: Apache-2.0

package yocto

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestExample: for OE-core the example's machine is qemuarm64, of which its kernel knows
// the board, and nothing is built for the card that is not in it.
func TestExample(t *testing.T) {
	all := checkouts(t)
	s := theSite(t)
	for _, c := range all {
		t.Run(c.series, func(t *testing.T) {
			build := func(machine string) *build {
				return s.newBuild(t, c, "example-"+c.series, layerDirs, false, `MACHINE = "`+machine+`"`)
			}
			kernel, err := filepath.Glob(filepath.Join(c.core, "meta/recipes-kernel/linux/linux-yocto_*.bb"))
			if err != nil || len(kernel) == 0 {
				t.Fatalf("%s has no linux-yocto: %v", c.core, err)
			}
			want := build("qemuarm64").variables(t, "-b", kernel[0])
			b := build("qemuarm64-updaterd")
			have := b.variables(t, "-b", kernel[0])
			for _, name := range []string{"KMACHINE", "KBRANCH", "SRCREV_machine", "KERNEL_FEATURES", "KERNEL_IMAGETYPE"} {
				if have[name] != want[name] || have[name] == "" {
					t.Errorf("the kernel is built with %s %q; want %q, as for qemuarm64", name, have[name], want[name])
				}
			}
			depends := strings.Fields(b.variables(t, "-b", filepath.Join(s.dir, "layers/meta-updaterd-qemu/recipes-core/images/updaterd-example-image.bb"))["DEPENDS"])
			if !slices.Contains(depends, "e2fsprogs-native") || slices.ContainsFunc(depends, func(name string) bool {
				return strings.Contains(name, "grub") || strings.Contains(name, "systemd-boot") || strings.Contains(name, "syslinux") || strings.Contains(name, "binutils")
			}) {
				t.Errorf("the image depends on %q", depends)
			}
			// With -b, BitBake takes no bbappends.
			short := s.newBuild(t, c, "example-conf-"+c.series, layerDirs, true, `MACHINE = "qemuarm64-updaterd"`, `SSTATE_SKIP_CREATION = ""`)
			if skip := short.variables(t, "updaterd-conf")["SSTATE_SKIP_CREATION"]; skip != "1" {
				t.Errorf("the keyring of a build directory goes into shared caches: SSTATE_SKIP_CREATION is %q", skip)
			}
		})
	}
}
