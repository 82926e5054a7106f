// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package guest

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/mtd"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
)

// SPI NOR flash: 4 KiB erase blocks, and copies of two of them.
func TestNOR(t *testing.T) {
	path := device(t, "spi0.0")
	d, err := mtd.Open(path, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if info := d.Info(); info.Kind != mtd.NOR || info.EraseSize != 0x1000 || info.Size != 2<<20 || !info.Bits {
		t.Fatalf("the chip is %+v", info)
	}
	// The rules of flash hold here: a write clears bits and sets none.
	content := make([]byte, 2)
	if err := d.Erase(0, 0x1000); err != nil {
		t.Fatal(err)
	}
	for _, w := range []struct{ write, want byte }{{0xf0, 0xf0}, {0x3f, 0x30}, {0xff, 0x30}} {
		if _, err := d.WriteAt([]byte{w.write, 0xff}, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := d.ReadAt(content, 0); err != nil || content[0] != w.want || content[1] != 0xff {
			t.Fatalf("%#x after %#x was written, %v; want %#x", content, w.write, err, w.want)
		}
	}
	config := uboot.Config{
		{Path: path, Offset: 0x10000, Size: 0x1800, SectorSize: 0x1000, Sectors: 2},
		{Path: path, Offset: 0x20000, Size: 0x1800, SectorSize: 0x1000, Sectors: 2},
	}
	c, file := format(t, config)
	flags := func() [2]byte {
		var f [2]byte
		for i := range f {
			if _, err := d.ReadAt(f[i:i+1], config[i].Offset+4); err != nil {
				t.Fatal(err)
			}
		}
		return f
	}
	takeTurns(t, c, file, 12, func() {
		if f := flags(); f != [2]byte{1, 0} && f != [2]byte{0, 1} {
			t.Errorf("the flags are %v; want one active and one obsolete", f)
		}
	})
	interrupted(t, d, c, file, config)
	single, file := format(t, config[:1])
	takeTurns(t, single, file, 4, func() {})
}

// NAND with 128 KiB erase blocks: copies of two blocks, in areas of four with a bad one.
func TestNAND(t *testing.T) {
	path := device(t, "NAND simulator partition 0")
	d, err := mtd.Open(path, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	info := d.Info()
	if info.Kind != mtd.NAND || info.EraseSize != 0x20000 || info.WriteSize != 0x800 || info.Size != 16*0x20000 {
		t.Fatalf("the chip is %+v", info)
	}
	for n := range int64(16) {
		if bad, err := d.Bad(n * info.EraseSize); err != nil || bad != slices.Contains(badBlocks[:], n) {
			t.Fatalf("block %d bad = %v, %v", n, bad, err)
		}
	}
	config := uboot.Config{
		{Path: path, Offset: 2 * 0x20000, Size: 0x22000, SectorSize: 0x20000, Sectors: 4},
		{Path: path, Offset: 8 * 0x20000, Size: 0x22000, SectorSize: 0x20000, Sectors: 4},
	}
	c, file := format(t, config)
	takeTurns(t, c, file, 12, func() {})
	interrupted(t, d, c, file, uboot.Config{{Offset: 3 * 0x20000}, {Offset: 8 * 0x20000}})
	single, file := format(t, config[:1])
	takeTurns(t, single, file, 4, func() {})
}

func TestUBI(t *testing.T) {
	path := device(t, "NAND simulator partition 1")
	tool(t, "", "ubiattach", "-p", path)
	for _, name := range []string{"env", "env_r"} {
		tool(t, "", "ubimkvol", "/dev/ubi0", "-N", name, "-S", "1")
	}
	for _, config := range []uboot.Config{
		{{Path: "/dev/ubi0_0", Size: 0x4000}, {Path: "/dev/ubi0_1", Size: 0x4000}},
		{{Path: "/dev/ubi0:env", Size: 0x4000}, {Path: "/dev/ubi0:env_r", Size: 0x4000}},
		{{Path: "/dev/ubi0:env", Size: 0x4000}},
	} {
		c, file := format(t, config)
		takeTurns(t, c, file, 6, func() {})
	}
	c, _ := format(t, uboot.Config{{Path: path + ":env", Size: 0x4000}, {Path: path + ":env_r", Size: 0x4000}})
	if err := c.Apply(bootctl.Change{EnvID: "by-the-MTD-device"}); err != nil {
		t.Fatal(err)
	}
	image, err := uboot.EncodeCopy(env(map[string]string{"boot_slot": "b"}), 77, 0x4000, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/tmp/image", image, 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "", "ubiupdatevol", "/dev/ubi0_1", "/tmp/image")
	if st, err := c.Status(); err != nil || st.Primary != "b" || st.Copies != 2 {
		t.Errorf("after ubiupdatevol: Status = %+v, %v", st, err)
	}
	// An update that is interrupted: UBI does not let the volume be read until the next one.
	halfUpdate(t, "/dev/ubi0_1", image)
	if st, err := c.Status(); err != nil || st.Primary != "a" || st.Copies != 1 {
		t.Errorf("after an interrupted update: Status = %+v, %v", st, err)
	}
	if err := c.Apply(bootctl.Change{EnvID: "healed"}); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Status(); err != nil || st.EnvID != "healed" || st.Copies != 2 {
		t.Errorf("after it was healed: Status = %+v, %v", st, err)
	}
}

// format stores an environment in every copy, and a fw_env.config.
func format(t *testing.T, config uboot.Config) (*uboot.Control, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fw_env.config")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := uboot.OpenStore(config, "")
	if err != nil {
		t.Fatal(err)
	}
	board := ubootmodel.Board{Store: store, Default: ubootmodel.Factory("a")}
	if err := board.Format(); err != nil {
		t.Fatal(err)
	}
	return uboot.New(store), file
}

// takeTurns writes random environments with either side and reads each with both.
func takeTurns(t *testing.T, c *uboot.Control, file string, rounds int, check func()) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, uint64(rounds)))
	for i := range rounds {
		want := map[string]string{"boot_slot": "a", "round": fmt.Sprint(i)}
		for range r.IntN(30) {
			want[fmt.Sprintf("name%d", r.IntN(1000))] = strings.Repeat(string(rune('!'+r.IntN(90))), 1+r.IntN(60)) + "."
		}
		if i%2 == 0 {
			err := c.Update(i%4 == 0, func(e *uboot.Env) error {
				for _, name := range e.Names() {
					if err := e.Set(name, ""); err != nil {
						return err
					}
				}
				for _, name := range slices.Sorted(maps.Keys(want)) {
					if err := e.Set(name, want[name]); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
		} else {
			setenv(t, file, want)
		}
		check()
		env, err := c.Env()
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if diff := cmp.Diff(want, env.Vars()); diff != "" {
			t.Fatalf("round %d, read by us: %s", i, diff)
		}
		if diff := cmp.Diff(want, printenv(t, file)); diff != "" {
			t.Fatalf("round %d, read by fw_printenv: %s", i, diff)
		}
	}
}

// interrupted erases the block in which the older copy begins, as a change does
// that is cut there: both sides still read the other copy, and the next change heals.
func interrupted(t *testing.T, d *mtd.Device, c *uboot.Control, file string, blocks uboot.Config) {
	t.Helper()
	for i := range 2 {
		want := map[string]string{"boot_slot": "a", "cut": fmt.Sprint(i)}
		setenv(t, file, want)
		flags := make([]byte, 2)
		for n := range flags {
			if _, err := d.ReadAt(flags[n:n+1], blocks[n].Offset+4); err != nil {
				t.Fatal(err)
			}
		}
		older := 0 // no flag has wrapped here
		if flags[0] > flags[1] {
			older = 1
		}
		if err := d.Erase(blocks[older].Offset, d.Info().EraseSize); err != nil {
			t.Fatal(err)
		}
		if st, err := c.Status(); err != nil || st.Copies != 1 {
			t.Errorf("Status = %+v, %v; want one copy", st, err)
		}
		if diff := cmp.Diff(want, printenv(t, file)); diff != "" {
			t.Errorf("read by fw_printenv: %s", diff)
		}
		if err := c.Apply(bootctl.Change{EnvID: "healed"}); err != nil {
			t.Fatal(err)
		}
		if st, err := c.Status(); err != nil || st.Copies != 2 || st.EnvID != "healed" {
			t.Errorf("Status = %+v, %v; want two copies", st, err)
		}
	}
}

// halfUpdate begins an update of a volume and gives up in the middle.
func halfUpdate(t *testing.T, path string, image []byte) {
	t.Helper()
	v, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	size := int64(len(image))
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, v.Fd(), unix.UBI_IOCVOLUP, uintptr(unsafe.Pointer(&size))); errno != 0 {
		t.Fatal(errno)
	}
	if _, err := v.Write(image[:len(image)/2]); err != nil {
		t.Fatal(err)
	}
}

func env(vars map[string]string) *uboot.Env {
	e := &uboot.Env{}
	for name, value := range vars {
		if err := e.Set(name, value); err != nil {
			panic(err)
		}
	}
	return e
}

func tool(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out.String(), errs.String())
	}
	return out.String()
}

func printenv(t *testing.T, file string) map[string]string {
	t.Helper()
	vars := map[string]string{}
	for line := range strings.Lines(tool(t, "", "fw_printenv", "-c", file)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		vars[name] = value
	}
	return vars
}

// setenv makes vars the whole environment, with one run of fw_setenv.
func setenv(t *testing.T, file string, vars map[string]string) {
	t.Helper()
	var script strings.Builder
	for name := range printenv(t, file) {
		if vars[name] == "" {
			fmt.Fprintf(&script, "%s=\n", name)
		}
	}
	for name, value := range vars {
		fmt.Fprintf(&script, "%s=%s\n", name, value)
	}
	tool(t, script.String(), "fw_setenv", "-c", file, "-s", "-")
}
