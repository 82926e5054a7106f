// SPDX-License-Identifier: Apache-2.0

package uboot_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
)

// numbered makes a regular file pass for the block device with a number.
type numbered struct {
	uboot.Disk
	major, minor int
}

type numberedInfo struct {
	os.FileInfo
	st syscall.Stat_t
}

func (i numberedInfo) Mode() os.FileMode { return os.ModeDevice | 0o660 }
func (i numberedInfo) Sys() any          { return &i.st }

func (d numbered) Info() (os.FileInfo, error) {
	info, err := d.Disk.Info()
	n := numberedInfo{FileInfo: info}
	setNumber(&n.st.Rdev, d.major<<8|d.minor)
	return n, err
}

// setNumber sets a field that has 32 bits on some processors.
func setNumber[T uint32 | uint64](field *T, n int) { *field = T(n) }

// attributes writes files of sysfs, and the link by which device 179:8 is found.
func attributes(t *testing.T, device string, files map[string]string) string {
	t.Helper()
	sysfs := t.TempDir()
	for _, dir := range []string{"dev/block", filepath.Join("devices", device)} {
		if err := os.MkdirAll(filepath.Join(sysfs, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../../devices/"+device, filepath.Join(sysfs, "dev/block/179:8")); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(sysfs, "devices", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return sysfs
}

// An eMMC boot partition is made writable for the write, and read-only again
// whatever comes of it; one that was writable before stays so.
func TestBootPartition(t *testing.T) {
	for _, tc := range []struct {
		name, before string
		fails        bool
	}{{"protected", "1", false}, {"protected, the write fails", "1", true}, {"not protected", "0", false}} {
		t.Run(tc.name, func(t *testing.T) {
			config := disk(t)
			sysfs := attributes(t, "mmcblk0boot0", map[string]string{"mmcblk0boot0/force_ro": tc.before})
			attribute := filepath.Join(sysfs, "devices/mmcblk0boot0/force_ro")
			read := func() string {
				b, err := os.ReadFile(attribute)
				if err != nil {
					t.Fatal(err)
				}
				return strings.TrimSpace(string(b))
			}
			open := func(path string, flags int) (uboot.Disk, error) {
				if flags&os.O_RDWR != 0 && read() != "0" {
					return nil, syscall.EROFS // as the kernel does
				}
				var log []string
				inner := record(&log, func(what string) error {
					if tc.fails && strings.HasPrefix(what, "write") {
						return syscall.EIO
					}
					return nil
				})
				d, err := inner(path, flags)
				return numbered{d, 179, 8}, err
			}
			store, err := uboot.OpenStoreIn(config, filepath.Join(t.TempDir(), "lock"), uboot.System{Disk: open, Sysfs: sysfs})
			if err != nil {
				t.Fatal(err)
			}
			if err := uboot.New(store).Apply(bootctl.Change{Primary: "b"}); (err != nil) != tc.fails {
				t.Errorf("Apply = %v; fails: %v", err, tc.fails)
			}
			if got := read(); got != tc.before {
				t.Errorf("force_ro is %s afterwards; want %s", got, tc.before)
			}
		})
	}
}

// The copies of disk are at 0x1000 and 0x8000.
func TestSpacing(t *testing.T) {
	for _, tc := range []struct {
		name, device string
		files        map[string]string
		want         string // "": no warning
	}{
		{"SD card", "mmcblk0", map[string]string{"mmcblk0/device/type": "SD", "mmcblk0/device/erase_size": "512", "mmcblk0/device/preferred_erase_size": "4194304"},
			"both copies lie in one allocation unit of the SD card (4096 KiB, from 0x0)"},
		{"partition of an eMMC", "mmcblk0/mmcblk0p1", map[string]string{"mmcblk0/mmcblk0p1/partition": "1",
			"mmcblk0/device/type": "MMC", "mmcblk0/device/erase_size": "524288", "mmcblk0/device/preferred_erase_size": "4194304"},
			"both copies lie in one erase group of the eMMC (512 KiB, from 0x0)"},
		{"small erase groups", "mmcblk0", map[string]string{"mmcblk0/device/type": "MMC", "mmcblk0/device/erase_size": "32768", "mmcblk0/queue/physical_block_size": "512"}, ""},
		{"disk", "sda", map[string]string{"sda/queue/physical_block_size": "4096"}, ""},
		{"large blocks", "sda", map[string]string{"sda/queue/physical_block_size": "65536"}, "both copies lie in one physical block of the disk (64 KiB"},
		{"nothing known", "sda", nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			open := func(path string, flags int) (uboot.Disk, error) {
				d, err := uboot.OpenDisk(path, flags)
				return numbered{d, 179, 8}, err
			}
			store, err := uboot.OpenStoreIn(disk(t), filepath.Join(t.TempDir(), "lock"), uboot.System{Disk: open, Sysfs: attributes(t, tc.device, tc.files)})
			if err != nil {
				t.Fatal(err)
			}
			got := store.Traits().Warnings
			if tc.want == "" && got != nil || tc.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], tc.want)) {
				t.Errorf("Warnings = %q; want %q", got, tc.want)
			}
			st, err := uboot.New(store).Status()
			if err != nil || fmt.Sprint(st.Warnings) != fmt.Sprint(got) || st.Problems != nil {
				t.Errorf("Status = %+v, %v; want the warnings, and no problem", st, err)
			}
		})
	}
}

func TestMTDBlockRefused(t *testing.T) {
	open := func(path string, flags int) (uboot.Disk, error) {
		d, err := uboot.OpenDisk(path, flags)
		return numbered{d, 31, 0}, err
	}
	if _, err := uboot.OpenStoreIn(disk(t), "lock", uboot.System{Disk: open}); err == nil || !strings.Contains(err.Error(), "/dev/mtd0") {
		t.Errorf("OpenStore = %v; want it to ask for the character device", err)
	}
}
