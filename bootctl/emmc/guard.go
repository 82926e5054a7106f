// SPDX-License-Identifier: Apache-2.0

package emmc

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A Guard is the switch force_ro, by which the kernel keeps a boot partition from
// being written by accident. The zero Guard is that of a device that has none.
type Guard struct{ path string }

// GuardOf finds the guard of a block device below sysfs, which is /sys.
func GuardOf(sysfs string, device uint64) Guard {
	path := filepath.Join(sysfs, "dev/block", fmt.Sprintf("%d:%d", unix.Major(device), unix.Minor(device)), "force_ro")
	if _, err := os.Stat(path); err != nil {
		return Guard{}
	}
	return Guard{path}
}

// Lift lets the device be written; restore undoes that. A power cut in between
// leaves nothing behind: every start of the kernel guards the partitions anew. A
// guard that somebody else has lifted stays so.
func (g Guard) Lift() (restore func() error, err error) {
	nothing := func() error { return nil }
	if g.path == "" {
		return nothing, nil
	}
	now, err := os.ReadFile(g.path)
	if err != nil {
		return nil, fmt.Errorf("make the boot partition writable: %w", err)
	}
	if strings.TrimSpace(string(now)) == "0" {
		return nothing, nil
	}
	if err := g.set("0"); err != nil {
		return nil, fmt.Errorf("make the boot partition writable: %w", err)
	}
	return func() error {
		if err := g.set("1"); err != nil {
			return fmt.Errorf("make the boot partition read-only again: %w", err)
		}
		return nil
	}, nil
}

// set does not create what is not there: the file is the kernel's.
func (g Guard) set(value string) error {
	f, err := os.OpenFile(g.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}
