// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"strings"
	"time"

	"github.com/u-root/u-root/pkg/cmdline"
	"github.com/u-root/u-root/pkg/kmodule"
	"github.com/u-root/u-root/pkg/mount"
	"golang.org/x/sys/unix"
)

const (
	newRoot    = "/root"
	realInit   = "/sbin/init"
	deviceWait = 20 * time.Second
)

func main() {
	log.SetFlags(0)
	if err := start(); err != nil {
		fmt.Println("initramfs:", err)
		os.Exit(1)
	}
}

func start() error {
	for _, m := range []struct{ fsType, dir string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := unix.Mount(m.fsType, m.dir, m.fsType, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	device, ok := cmdline.Flag("root")
	if !ok {
		return errors.New("no root= on the kernel command line")
	}
	if err := waitFor(device, deviceWait); err != nil {
		return err
	}
	if _, err := mount.Mount(device, newRoot, "ext4", "", unix.MS_RDONLY); err != nil {
		return err
	}
	return mount.SwitchRoot(newRoot, realInit)
}

// loadModules inserts the modules of a list, one path a line, needed ones first.
func loadModules(list string) error {
	b, err := os.ReadFile(list)
	if err != nil {
		return fmt.Errorf("read list of modules: %w", err)
	}
	for _, path := range strings.Fields(string(b)) {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("load module: %w", err)
		}
		err = kmodule.FileInit(f, "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load module %s: %w", path, err)
		}
	}
	return nil
}

// waitFor waits until a device is there: cards are found some time after their driver.
func waitFor(device string, wait time.Duration) error {
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		_, err := os.Stat(device)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) || time.Now().After(end) {
			return fmt.Errorf("wait for the root device: %w", err)
		}
	}
}
