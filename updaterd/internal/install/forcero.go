// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// forceRO is the switch by which the kernel keeps the boot partitions of an
// eMMC from being written by accident; "" if the device has none, or it is off.
func forceRO(sysfs string, device uint64) (string, error) {
	path := filepath.Join(sysfs, "dev/block", fmt.Sprintf("%d:%d", unix.Major(device), unix.Minor(device)), "force_ro")
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case strings.TrimSpace(string(b)) == "0":
		return "", nil
	}
	return path, nil
}

// allow clears the switch at the first write, so that a device that is only
// inspected stays as it was.
func (d *slotFile) allow() error {
	if d.protected == "" || d.allowed {
		return nil
	}
	if err := os.WriteFile(d.protected, []byte("0"), 0o644); err != nil {
		return fmt.Errorf("allow writing: %w", err)
	}
	d.allowed = true
	return nil
}

// protect sets the switch again. A power cut does so, too.
func (d *slotFile) protect() {
	if d.allowed {
		_ = os.WriteFile(d.protected, []byte("1"), 0o644) // it was set before, and is only a guard
	}
}
