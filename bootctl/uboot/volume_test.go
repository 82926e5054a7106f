// SPDX-License-Identifier: Apache-2.0

package uboot_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
)

// ubi is a UBI device in memory: volumes by the name that stands in fw_env.config.
type ubi struct {
	volumes map[string]*volume
	left    int // steps until the power is cut; -1: never
}

type volume struct {
	device   *ubi
	content  []byte
	updating int64 // bytes that the update still needs; -1: none is going on
}

var errCut = errors.New("power cut")

func (d *ubi) step() error {
	if d.left == 0 {
		return errCut
	}
	d.left--
	return nil
}

func (v *volume) Update(n int64) error {
	if err := v.device.step(); err != nil {
		return err
	}
	v.updating, v.content = n, nil // UBI unmaps all blocks
	return nil
}

func (v *volume) Write(p []byte) (int, error) {
	if int64(len(p)) > v.updating {
		return 0, unix.EPERM
	}
	for i, b := range p {
		if err := v.device.step(); err != nil {
			return i, err
		}
		v.content = append(v.content, b)
		v.updating--
	}
	if err := v.device.step(); err != nil {
		return len(p), err
	}
	v.updating = -1 // the mark is taken away
	return len(p), nil
}

func (v *volume) ReadAt(p []byte, offset int64) (int, error) {
	if v.updating >= 0 {
		return 0, unix.EBADF
	}
	n := copy(p, v.content[min(offset, int64(len(v.content))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (v *volume) Sync() error  { return nil }
func (v *volume) Close() error { return nil }

// newUBI is UBI with two volumes, and a sysfs that knows them. The nodes in
// /dev are those of other character devices.
func newUBI(t *testing.T) (*ubi, uboot.System) {
	t.Helper()
	sysfs := t.TempDir()
	d := &ubi{volumes: map[string]*volume{}, left: -1}
	write := func(name, text string) {
		path := filepath.Join(sysfs, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("class/ubi/ubi0/mtd_num", "3")
	for i, node := range []string{"/dev/null", "/dev/zero"} {
		name := []string{"ubi0_0", "ubi0_7"}[i]
		write("class/ubi/"+name+"/name", []string{"env", "env_r"}[i])
		write("class/ubi/"+name+"/reserved_ebs", "2")
		write("class/ubi/"+name+"/usable_eb_size", "4096")
		link := filepath.Join(sysfs, "dev/char", []string{"1:3", "1:5"}[i])
		if err := os.MkdirAll(filepath.Dir(link), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../../class/ubi/"+name, link); err != nil {
			t.Fatal(err)
		}
		d.volumes[node] = &volume{device: d, updating: -1}
	}
	return d, uboot.System{Sysfs: sysfs, Volume: func(path string, _ int) (uboot.Volume, error) {
		if d.left == 0 {
			return nil, errCut
		}
		return d.volumes[path], nil
	}}
}

// Wherever the power is cut in an update of a volume, the other volume is in
// force, and the next change works.
func TestVolumes(t *testing.T) {
	d, sys := newUBI(t)
	config := uboot.Config{{Path: "/dev/null", Size: 0x100}, {Path: "/dev/zero", Size: 0x100}}
	store, err := uboot.OpenStoreIn(config, filepath.Join(t.TempDir(), "lock"), sys)
	if err != nil {
		t.Fatal(err)
	}
	board := ubootmodel.Board{Store: store, Default: ubootmodel.Factory("a")}
	if err := board.Format(); err != nil {
		t.Fatal(err)
	}
	c := uboot.New(store)
	for n := 0; ; n++ {
		if err := c.Apply(bootctl.Change{EnvID: "old"}); err != nil {
			t.Fatalf("cut %d: %v", n, err)
		}
		d.left = n
		err := c.Apply(bootctl.Change{EnvID: "new", BothCopies: true})
		d.left = -1
		st, serr := c.Status()
		if serr != nil || st.EnvID != "old" && st.EnvID != "new" {
			t.Fatalf("cut %d: Status = %+v, %v", n, st, serr)
		}
		if err == nil {
			if st.EnvID != "new" || st.Copies != 2 || n < 0x200 {
				t.Errorf("after %d cuts: Status = %+v", n, st)
			}
			return
		}
		if !errors.Is(err, errCut) {
			t.Fatal(err)
		}
	}
}

func TestVolumeErrors(t *testing.T) {
	_, sys := newUBI(t)
	for _, tc := range []struct{ name, config, want string }{
		{"offset", "/dev/null 0x10 400", "holds one copy, from its beginning"},
		{"too large", "/dev/null 0 2001", "does not fit UBI volume"},
		{"the same", "/dev/null 0 400\n/dev/null 0 400", "both copies are in UBI volume /dev/null"},
		{"no such name", "/dev/ubi0:boot 0 400", "no volume of /dev/ubi0 has that name"},
		{"no such device", "/dev/ubi4:env 0 400", "no volume of /dev/ubi4"},
		{"not attached", "/dev/mtd2:env 0 400", "UBI is not attached to /dev/mtd2"},
		// Found by its name; only the machine has no such node.
		{"by name", "/dev/ubi0:env_r 0 400", "/dev/ubi0_7: no such file"},
		{"by name on MTD", "/dev/mtd3:env 0 400", "/dev/ubi0_0: no such file"},
	} {
		config, _, err := uboot.ParseConfig([]byte(tc.config))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := uboot.OpenStoreIn(config, "lock", sys); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: OpenStore = %v; want %q", tc.name, err, tc.want)
		}
	}
}
