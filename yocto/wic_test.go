// SPDX-License-Identifier: Apache-2.0

package yocto

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/qemu/uboot"
)

// TestDisk has wic make a disk from each layout: the slots, what is in them, and
// the environment are where the board expects them. Newer series have wic apart
// from OE-core, so this wants a checkout of scarthgap.
func TestDisk(t *testing.T) {
	var core *checkout
	for _, c := range checkouts(t) {
		if c.series == "scarthgap" {
			core = &c
		}
	}
	if core == nil {
		t.Skip("skipped: no checkout of scarthgap in OECORE_DIR: newer series have wic apart from OE-core")
	}
	s := theSite(t)
	b := s.newBuild(t, *core, "disk", nil, false)
	image := bytes.Repeat([]byte("an image of a slot\n"), 50_000)
	env := bytes.Repeat([]byte("env\x00"), uboot.EnvSize/4)
	s.write(t, "disk/deploy/test.ext4", string(image), 0o644)
	s.write(t, "disk/deploy/updaterd-env.bin", string(env), 0o644)
	s.mkdir(t, "disk/root")
	dir := filepath.Join(s.dir, "disk")
	s.write(t, "disk/vars/test.env", strings.Join([]string{
		`DEPLOY_DIR_IMAGE="` + dir + `/deploy"`, `IMAGE_ROOTFS="` + dir + `/root"`, `IMAGE_BASENAME="test"`, `ROOTFS_SIZE="1024"`,
		`STAGING_DATADIR="/usr/share"`, `RECIPE_SYSROOT_NATIVE="/"`, `HOSTTOOLS_DIR="/usr/bin"`, "",
	}, "\n"), 0o644)
	values := strings.NewReplacer("${IMGDEPLOYDIR}", dir+"/deploy", "${IMAGE_LINK_NAME}", "test", "${UPDATERD_FSTYPE}", "ext4",
		"${UPDATERD_ENV_OFFSET}", "1024K", "${UPDATERD_ENV_OFFSET_REDUND}", "1056K", "${UPDATERD_SLOT_SIZE}", "16M", "${UPDATERD_DATA_SIZE}", "8M")

	for _, name := range []string{"updaterd-ab", "updaterd-ab-env"} {
		t.Run(name, func(t *testing.T) {
			layout := values.Replace(read(t, layer, "files/wic", name+".wks.in"))
			if strings.Contains(strings.SplitN(layout, "\npart", 2)[1], "${") {
				t.Fatalf("the layout has variables that this test does not know:\n%s", layout)
			}
			wks := s.write(t, "disk/"+name+".wks", layout, 0o644)
			out := filepath.Join(dir, "out-"+name)
			if err := os.RemoveAll(out); err != nil {
				t.Fatal(err)
			}
			b.must(t, "wic", "create", wks, "--vars", dir+"/vars", "-e", "test", "-o", out)
			disks, err := filepath.Glob(out + "/*.direct")
			if err != nil || len(disks) != 1 {
				t.Fatalf("disks: %q, %v; want one", disks, err)
			}
			disk, err := os.ReadFile(disks[0])
			if err != nil {
				t.Fatal(err)
			}
			table, err := exec.Command("sgdisk", "--print", disks[0]).CombinedOutput()
			if err != nil {
				t.Fatalf("sgdisk: %v\n%s", err, table)
			}
			t.Logf("%s", table)
			for _, row := range []string{" 1 4096 36863 16.0 MiB 8300 rootfs_a", " 2 36864 69631 16.0 MiB 8300 rootfs_b", " 3 69632 86015 8.0 MiB 8300 data"} {
				if !strings.Contains(strings.Join(strings.Fields(string(table)), " "), row) {
					t.Errorf("there is no partition %q", row)
				}
			}
			if !bytes.HasPrefix(disk[2<<20:], image) {
				t.Error("slot a does not hold the image")
			}
			if want := name == "updaterd-ab-env"; bytes.HasPrefix(disk[uboot.EnvOffset:], env) != want || bytes.HasPrefix(disk[uboot.EnvOffset2:], env) != want {
				t.Errorf("the copies of the environment are there = %v; want %v", !want, want)
			}
		})
	}
}
