// SPDX-License-Identifier: Apache-2.0

// Package machine reads what the running system says about itself: the slot it
// was started from, the id of this start, and the build it is.
//
// It believes the kernel command line about the slot only if the root file
// system that is mounted confirms it.
package machine

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/u-root/u-root/pkg/cmdline"
	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bundle/permit"
)

// rebootTimeout bounds how long init may take to accept a reboot.
const rebootTimeout = 30 * time.Second

// maxOSRelease bounds what is read of os-release.
const maxOSRelease = 64 << 10

// Machine satisfies update.System.
type Machine struct {
	line   *cmdline.CmdLine
	bootID string
	scheme uboot.Scheme
	root   map[bootctl.Slot]string
	dir    string
	sysfs  string
}

// New reads the running machine. dir is where its root file system is seen, "/"
// on a device; root names the block device of each slot of the class that is
// mounted there, and scheme says what the kernel command line calls the slots.
func New(dir string, root map[bootctl.Slot]string, scheme uboot.Scheme) (*Machine, error) {
	line := cmdline.NewCmdLine()
	if line.Err != nil {
		return nil, fmt.Errorf("read kernel command line: %w", line.Err)
	}
	id, err := BootID()
	if err != nil {
		return nil, err
	}
	return &Machine{line: line, bootID: id, scheme: scheme, root: root, dir: dir, sysfs: "/sys"}, nil
}

// BootID is the kernel's id of this start.
func BootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// BootID changes at every start of the kernel.
func (m *Machine) BootID() string { return m.bootID }

// EnvID is the canary on the kernel command line, or "".
func (m *Machine) EnvID() string {
	id, _ := m.line.Flag("updaterd.env_id")
	return id
}

// Booted is the slot on the kernel command line, if the device of that slot is
// the one mounted on /.
func (m *Machine) Booted() (bootctl.Slot, error) {
	slot, err := m.scheme.Booted(m.line.Flag)
	if err != nil {
		return "", err
	}
	device, ok := m.root[slot]
	if !ok {
		return "", fmt.Errorf("the configuration has no device for slot rootfs.%s", slot)
	}
	var mounted, dev unix.Stat_t
	if err := unix.Stat(m.dir, &mounted); err != nil {
		return "", fmt.Errorf("look at %s: %w", m.dir, err)
	}
	if err := unix.Stat(device, &dev); err != nil {
		return "", fmt.Errorf("look at the device of rootfs.%s, %s: %w", slot, device, err)
	}
	if dev.Mode&unix.S_IFMT != unix.S_IFBLK || mounted.Dev != dev.Rdev && !m.above(number(mounted.Dev), number(dev.Rdev), maxLayers) {
		return "", fmt.Errorf("the kernel command line says slot %s, but / is not mounted from %s (an overlay, a rescue system or another disk?)", slot, device)
	}
	return slot, nil
}

// number is a device's, as sysfs writes it.
func number(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }

// maxLayers bounds how many mappings may lie above a slot.
const maxLayers = 4

// above reports whether the device mapper makes a device of another one: dm-verity
// shows a slot's file system as a device of its own.
func (m *Machine) above(device, slot string, layers int) bool {
	below, _ := filepath.Glob(filepath.Join(m.sysfs, "dev/block", device, "slaves/*/dev"))
	for _, path := range below {
		b, _ := os.ReadFile(path)
		if n := strings.TrimSpace(string(b)); n == slot || layers > 1 && n != "" && m.above(n, slot, layers-1) {
			return true
		}
	}
	return false
}

// Claimed is the slot that the kernel command line names, whether or not that
// is proven; "" if it names none.
func Claimed(scheme uboot.Scheme) bootctl.Slot {
	slot, err := scheme.Booted(cmdline.NewCmdLine().Flag)
	if err != nil {
		return "" // Booted says why, to those who need it proven
	}
	return slot
}

// Uptime is how long the kernel has been running.
func Uptime() time.Duration {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0 // it has no way to fail but a wrong address
	}
	return time.Duration(info.Uptime) * time.Second
}

// Reboot asks init for an orderly reboot.
func (m *Machine) Reboot(ctx context.Context) error { return Reboot(ctx) }

// Reboot is [Machine.Reboot] for a caller that has no Machine.
func Reboot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rebootTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "reboot").CombinedOutput(); err != nil {
		return fmt.Errorf("reboot: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// ID reads which device this is from a file. A device that has none, or that has
// not got its machine-id yet, has the id "".
func (m *Machine) ID(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	f, err := os.Open(filepath.Join(m.dir, path))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the device's id: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return "", fmt.Errorf("read the device's id: %w", err)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	id := string(bytes.TrimSpace(bytes.TrimRight(line, "\x00")))
	if id == "" || id == "uninitialized" { // as machine-id(5) has it before the first start is done
		return "", nil
	}
	if err := permit.CheckName(id); err != nil {
		return "", fmt.Errorf("read the device's id, %s: %w", path, err)
	}
	return id, nil
}

// Release is what os-release says of the running image.
type Release struct {
	BuildID string // BUILD_ID
	Version string // IMAGE_VERSION, or without one VERSION_ID, or BUILD_ID
	Built   time.Time
	// Floor is UPDATERD_FLOOR: the lowest sequence that this image accepts.
	Floor uint64
}

// Release reads os-release (https://www.freedesktop.org/software/systemd/man/os-release.html).
// Built is the file's time: an image cannot be older than a file in it.
func (m *Machine) Release() (Release, error) {
	path := filepath.Join(m.dir, "etc/os-release")
	f, err := os.Open(path)
	if err != nil {
		return Release{}, fmt.Errorf("read os-release: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Release{}, fmt.Errorf("read os-release: %w", err)
	}
	if info.Size() > maxOSRelease {
		return Release{}, fmt.Errorf("read %s: it has %d bytes, more than %d", path, info.Size(), maxOSRelease)
	}
	r := Release{Built: info.ModTime()}
	values := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), "=")
		values[key] = strings.Trim(value, `"'`)
	}
	r.BuildID = values["BUILD_ID"]
	if floor := values["UPDATERD_FLOOR"]; floor != "" {
		if r.Floor, err = strconv.ParseUint(floor, 10, 64); err != nil {
			return r, fmt.Errorf("read %s: UPDATERD_FLOOR=%q is no number", path, floor)
		}
	}
	// VERSION_ID is the distribution's, which many releases of an image share.
	r.Version = cmp.Or(values["IMAGE_VERSION"], values["VERSION_ID"], r.BuildID)
	return r, lines.Err()
}
