// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package guest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// moduleOptions of the simulated NAND: 2 KiB pages, 128 KiB erase blocks. The first
// 16 blocks are a partition for the environment, with bad blocks in it, and the
// next 64 one for UBI.
var moduleOptions = map[string]string{
	"nandsim": fmt.Sprintf("id_bytes=0x20,0xaa,0x00,0x15 parts=16,64 badblocks=%d,%d,20", badBlocks[0], badBlocks[1]),
}

// badBlocks of the environment's partition: the first of one copy's area, and the second of the other's.
var badBlocks = [2]int64{2, 9}

// inGuest tells that this is the init of the board.
var inGuest = os.Getpid() == 1

func TestMain(m *testing.M) {
	if !inGuest {
		os.Exit(m.Run())
	}
	if err := boot(); err != nil {
		fmt.Println("guest:", err)
	}
	flag.Parse()
	_ = flag.Set("test.v", "true")
	fmt.Println("guest: ended", m.Run())
	select {} // the host pulls the plug
}

func boot() error {
	for _, m := range []struct{ fsType, dir string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := unix.Mount(m.fsType, m.dir, m.fsType, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	if err := os.Setenv("PATH", "/usr/bin:/usr/sbin"); err != nil {
		return err
	}
	list, err := os.ReadFile("/modules")
	if err != nil {
		return err
	}
	for _, p := range strings.Fields(string(list)) {
		name := strings.TrimSuffix(filepath.Base(p), ".ko")
		f, err := os.Open("/m/" + name + ".ko")
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), moduleOptions[name], 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

// device is the MTD device with a name, such as /dev/mtd0. Chips are found some
// time after their drivers.
func device(t *testing.T, name string) string {
	t.Helper()
	if !inGuest {
		t.Skip("this test runs on the board: go test -tags qemu ./qemu/flash")
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		names, err := filepath.Glob("/sys/class/mtd/mtd*/name")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range names {
			b, err := os.ReadFile(path)
			if dir := filepath.Base(filepath.Dir(path)); err == nil && strings.TrimSpace(string(b)) == name && !strings.HasSuffix(dir, "ro") {
				return "/dev/" + dir
			}
		}
	}
	t.Fatalf("there is no MTD device %q", name)
	return ""
}
