// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/updaterd/updaterd/qemu/device"
)

// TestBuildrootCard: a device starts from the card that the example for
// Buildroot makes, and updates itself by the bundle that it makes, with a delta
// from the bundle of the release before. Its root file systems are those of the
// small guest, in the place of what Buildroot would have built.
func TestBuildrootCard(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"genimage", "mkenvimage"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("skipped: no %s; .ci/setup installs it", program)
		}
	}
	s := smallSystems(t)
	dir, releases := t.TempDir(), t.TempDir()
	shell := func(script string, env ...string) {
		t.Helper()
		cmd := exec.Command("sh", "-euc", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), append(env, "PATH="+dir+"/bin:"+os.Getenv("PATH"), "TARGET_DIR="+dir+"/target", "KEYRING="+s.Keyring,
			"UPDATERD_KEY="+s.KeyFile, "UPDATERD_RELEASES="+releases)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	shell("make -s -C " + top + " tools TOOLS=" + dir + "/bin")
	// The guest's kernel has its drivers in an initramfs.
	shell(`mkdir -p images target/etc/updaterd
cp -rL ` + top + `/buildroot tree && echo "boot_initrd=/boot/initrd" >tree/board/qemu-aarch64/board.env
cp -r "$KEYRING" target/etc/updaterd/keys
echo 'compatible = "` + device.Compatible + `"' >target/etc/updaterd/updaterd.toml`)
	build := func(image, version, sequence string) {
		t.Helper()
		shell("cp --sparse=always "+image+" images/rootfs.ext4 && tree/board/qemu-aarch64/post-image.sh images",
			"UPDATERD_IMAGE_VERSION="+version, "UPDATERD_IMAGE_SEQUENCE="+sequence)
	}
	build(s.v1, "1.0", "1")
	shell("mv images/sdcard.img card.img && mv images/*.upb " + releases)
	build(s.v2, "2.0", "2")

	uboot, err := s.UBoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dev, err := device.Open(uboot, filepath.Join(dir, "card.img"), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dev.Close)
	boot(t, dev)
	st := status(t, dev)
	if st.BootedSlot != "a" || st.PrimarySlot != "a" {
		t.Fatalf("booted %s, primary %s; want a", st.BootedSlot, st.PrimarySlot)
	}
	server := s.serve(t, filepath.Join(dir, "images"))
	installAndReboot(t, dev, url(server, device.Compatible+"-2.0.upb"))
	if err := dev.AwaitReset(within(t, 2*time.Minute), 1); err != nil {
		t.Fatal(err)
	}
	st = settled(t, dev, 3*time.Minute)
	if st.BootedSlot != "b" || st.PrimarySlot != "b" {
		t.Errorf("booted %s, primary %s; want b, the trial is good", st.BootedSlot, st.PrimarySlot)
	}
	expectEnv(t, dev, map[string]string{"boot_slot": "b", "upgrade_available": "0"})
	if info, err := os.Stat(filepath.Join(dir, "images", device.Compatible+"-2.0.upb")); err != nil || server.Sent() > info.Size()/2 {
		t.Errorf("%d bytes were fetched, as if there were no delta: %v", server.Sent(), err)
	}
}
