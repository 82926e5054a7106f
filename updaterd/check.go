// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bundle/channel"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/check"
	"github.com/updaterd/updaterd/updaterd/internal/config"
	"github.com/updaterd/updaterd/updaterd/internal/fetch"
	"github.com/updaterd/updaterd/updaterd/internal/machine"
)

// leastFree is what the journal and the records need on the data partition.
const leastFree = 4 << 20

// checksOf lists what can be checked on the device whose root file system is
// mounted at root.
func checksOf(c *config.Config, root string) []check.Check {
	return append(checksOfConfig(c, root), check.List(hostOf(c, root))...)
}

// checksOfConfig lists what is checked of what the configuration names.
func checksOfConfig(c *config.Config, root string) []check.Check {
	list := []check.Check{
		{Name: "keyring", Look: func() (string, error) { return checkKeyring(c) }},
		{Name: "ends of keys", Look: func() (string, error) { return checkEnds(c, time.Now()) }},
		{Name: "boot environment", Look: func() (string, error) { return checkEnvironment(c) }},
		{Name: "canary", Look: func() (string, error) { return checkCanary(c, root) }},
	}
	for _, class := range c.Classes() {
		for _, slot := range []bootctl.Slot{bootctl.SlotA, bootctl.SlotB} {
			list = append(list, check.Check{Name: "slot " + class + "." + string(slot), Look: func() (string, error) { return checkSlot(c, class, slot) }})
		}
		if c.Type(class) != config.TypePartition {
			list = append(list, check.Check{Name: "switch of class " + class, Look: func() (string, error) { return checkSwitch(c, class) }})
		}
	}
	return append(list,
		check.Check{Name: "booted slot", Look: func() (string, error) { return checkBooted(c, root) }},
		check.Check{Name: "kernel panic", Look: func() (string, error) { return checkPanic("/proc/sys/kernel/panic") }},
		check.Check{Name: "data directory", Look: func() (string, error) { return checkData(c, root) }},
		check.Check{Name: "floor store", Look: func() (string, error) { return checkFloorStore(c, root) }},
		check.Check{Name: "identity", Look: func() (string, error) { return checkIdentity(c) }},
		check.Check{Name: "certificates", Look: func() (string, error) { return checkCertificates(c) }},
		check.Check{Name: "health units", Look: func() (string, error) { return checkUnits(c, root, askSystemd) }},
		check.Check{Name: "health commands", Look: func() (string, error) { return checkCommands(c) }},
		check.Check{Name: "migration hook", Look: func() (string, error) { return checkHook(c) }},
	)
}

func checkKeyring(c *config.Config) (string, error) {
	const cure = "install the public key that signs your bundles (made by \"updater-sign keygen\"), and nothing that is no public key; bundles are refused without it"
	keys, err := sign.LoadKeyring(c.Keyring)
	if err != nil {
		return "", check.Fault(cure, "%w", err)
	}
	if example, _ := filepath.Glob(filepath.Join(c.Keyring, "example*")); len(example) > 0 {
		return "", check.Fault("remove it, and install your own key in its place (\"updater-sign keygen\")", "%s is an example's key: whoever has the example signs for this device", example[0])
	}
	n, authorities := len(keys.KeyIDs()), len(keys.Authorities())
	holds := fmt.Sprintf("%d keys and %d authorities in %s", n, authorities, c.Keyring)
	if c.Policy != "" {
		return checkPolicy(c, holds)
	}
	if n < c.Threshold && authorities == 0 {
		return "", check.Fault(cure, "%s holds %d different keys, and %d must have signed (threshold)", c.Keyring, n, c.Threshold)
	}
	if authorities == 0 {
		holds = fmt.Sprintf("%d keys in %s", n, c.Keyring)
	}
	return fmt.Sprintf("%s, of which %d must have signed", holds, c.Threshold), nil
}

func checkIdentity(c *config.Config) (string, error) {
	read := identity(c)
	if read == nil {
		return "none: bundles that are encrypted are refused", nil
	}
	id, err := read()
	if err != nil {
		return "", check.Fault("write what \"updater-bundle keygen\" made to it, for root alone to read; bundles that are encrypted are refused without it", "%w", err)
	}
	return fmt.Sprintf("reads what is encrypted for recipient %s", id.Recipient().ID()), nil
}

func checkPolicy(c *config.Config, holds string) (string, error) {
	policy, err := policyOf(c)
	if err != nil {
		return "", check.Fault("correct the policy, see \"Policy file\" in docs/security.md; bundles are refused without it", "%w", err)
	}
	for _, class := range c.Classes() {
		if !policy.Covers(class) {
			return "", check.Fault("write a [[rule]] for that class, or one without classes", "%s has no rule for images of class %q: bundles with one are refused", c.Policy, class)
		}
	}
	if c.Channel.URL != "" && !policy.Covers(channel.Class) {
		return "", check.Fault("write a [[rule]] for that class, or one without classes", "%s has no rule for class %q: the metadata of channel %s are refused", c.Policy, channel.Class, c.Channel.Name)
	}
	return fmt.Sprintf("%s, %d rules in %s", holds, policy.Rules(), c.Policy), nil
}

func checkEnvironment(c *config.Config) (string, error) {
	control, err := openEnvironment(c, machine.Claimed(schemeOf(c))) // the switches have checks of their own
	if err != nil {
		return "", check.Fault("write U-Boot's CONFIG_ENV_OFFSET, _OFFSET_REDUND and _SIZE, and the device, to "+c.Boot.FwEnvConfig, "%w", err)
	}
	if c.Boot.Defaults != "" {
		if err := restorable(c); err != nil {
			return "", check.Fault("install U-Boot's default environment as "+c.Boot.Defaults+", or leave [boot] defaults empty", "%w", err)
		}
	}
	status, err := control.Status()
	switch {
	case errors.Is(err, bootctl.ErrDamaged):
		return "", check.Fault("see \"Recovery\" in docs/boot-contract.md", "%w", err)
	case err != nil:
		return "", check.Fault("see docs/boot-contract.md for what the environment must hold", "%w", err)
	case status.Redundant && status.Copies < 2:
		return "", check.Fault("run \"saveenv\" at U-Boot's prompt; outside of a trial, \"updater-bootctl mark-good\" mends the other copy, too",
			"one of the two copies is not intact: the device does not survive the loss of the other")
	case len(status.Problems) > 0:
		return "", check.Fault("see docs/boot-contract.md for what the environment must hold", "%s", strings.Join(status.Problems, "; "))
	case !status.Redundant:
		return strings.Join(append([]string{"one copy; two would survive a power cut while it is written"}, status.Warnings...), "; "), nil
	}
	return strings.Join(append([]string{fmt.Sprintf("two intact copies, slot %s is primary", status.Primary)}, status.Warnings...), "; "), nil
}

func checkSlot(c *config.Config, class string, slot bootctl.Slot) (string, error) {
	name, path := class+"."+string(slot), c.Device(class, string(slot))
	cure := fmt.Sprintf("correct device of [slots.%q], or make the partition", name)
	info, size, err := deviceAt(path)
	if err != nil {
		return "", check.Fault(cure, "%w", err)
	}
	if size == 0 {
		return "", check.Fault(cure, "%s is empty", path)
	}
	environment, _, _ := uboot.ReadConfig(c.Boot.FwEnvConfig) // which has a check of its own
	if _, err := beforeEnvironment(c, class, slot, environment); err != nil {
		return "", check.Fault(cure, "%w", err)
	}
	if c.Region(class) {
		s := c.Slots[name]
		if end := int64(s.Offset) + int64(s.Size); end > size {
			return "", check.Fault(cure, "%s ends at %d, and %s has %d bytes", name, end, path, size)
		}
		return fmt.Sprintf("%s at %d, %d bytes", path, s.Offset, s.Size), nil
	}
	// If the other one is missing, its own check says so.
	other, otherSize, err := deviceAt(c.Device(class, string(slot.Other())))
	switch {
	case err != nil:
	case sameDevice(info, other):
		return "", check.Fault(cure, "%s is the device of the other slot, under another name", path)
	case size < otherSize:
		return "", check.Fault(fmt.Sprintf("make the two partitions of one size, %d bytes or what your images need", otherSize),
			"%s has %d bytes, fewer than the other slot, %d: a device that took a release which fits that one alone takes no other after it", path, size, otherSize)
	}
	return fmt.Sprintf("%s, %d bytes", path, size), nil
}

func sameDevice(a, b os.FileInfo) bool {
	x, y := a.Sys().(*syscall.Stat_t), b.Sys().(*syscall.Stat_t)
	return os.SameFile(a, b) || a.Mode()&fs.ModeDevice != 0 && b.Mode()&fs.ModeDevice != 0 && x.Rdev == y.Rdev
}

// deviceAt is the block device or regular file at path.
func deviceAt(path string) (os.FileInfo, int64, error) {
	info, err := os.Stat(path) // before it is opened: a FIFO would wait
	if err != nil {
		return nil, 0, err
	}
	if mode := info.Mode(); !mode.IsRegular() && (mode&fs.ModeDevice == 0 || mode&fs.ModeCharDevice != 0) {
		return nil, 0, fmt.Errorf("%s is neither a block device nor a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	return info, size, err
}

func checkBooted(c *config.Config, root string) (string, error) {
	const cure = "let the boot command add updaterd.slot=a or =b (with scheme bootorder, rauc.slot= and the name of the slot), and mount that slot's device on /; until then updaterd installs nothing"
	system, err := machine.New(root, devices(c)[rootClass], schemeOf(c))
	if err != nil {
		return "", check.Fault(cure, "%w", err)
	}
	slot, err := system.Booted()
	if err != nil {
		return "", check.Fault(cure, "%w", err)
	}
	return string(slot), nil
}

// checkPanic reads how long a kernel that panics waits before it starts anew.
func checkPanic(path string) (string, error) {
	text, err := os.ReadFile(path)
	value := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		return "", check.Fault("mount /proc", "%w", err)
	case value == "0":
		return "", check.Fault("let the boot command add panic=5, or build the kernel with CONFIG_PANIC_TIMEOUT=5",
			"a kernel that panics stays as it is: a new system that does so in its trial is never counted, and the device never falls back")
	case strings.HasPrefix(value, "-"):
		return "starts anew at once", nil
	}
	return "starts anew after " + value + " s", nil
}

func checkData(c *config.Config, root string) (string, error) {
	dir, note, err := checkDir(c.DataDir, root, "mount a partition that both slots share there, or correct data_dir", "the journal")
	if err != nil {
		return "", err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", check.Fault("correct data_dir", "%w", &fs.PathError{Op: "statfs", Path: dir, Err: err})
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	need := int64(leastFree)
	if c.Download.Mode == "store" {
		need += int64(c.Download.StoreBudget)
	}
	if free < need {
		return "", check.Fault("make room, or lower store_budget, or use mode \"auto\", which streams what does not fit",
			"%s has %d bytes free, and %d are needed", dir, free, need)
	}
	if budget := int64(c.Download.StoreBudget); c.Download.Mode == "auto" && free < leastFree+budget {
		return "", check.Doubt("make room, or lower store_budget to what is there", "%s has %d bytes free, and store_budget is %d: a download that does not fit is streamed, and then the old system in the target slot is given up earlier", dir, free, budget)
	}
	return fmt.Sprintf("%s%s, %d bytes free", c.DataDir, note, free), nil
}

func checkFloorStore(c *config.Config, root string) (string, error) {
	if c.FloorStore == "" {
		return "none: whoever wipes data_dir lowers the floors to those of the running image", nil
	}
	dir, note, err := checkDir(c.FloorStore, root, "mount another partition there, or correct floor_store", "the floors")
	if err != nil {
		return "", err
	}
	data := c.DataDir
	if _, err := os.Stat(data); errors.Is(err, fs.ErrNotExist) {
		data = filepath.Dir(data)
	}
	var here, there unix.Stat_t
	if unix.Stat(dir, &here) == nil && unix.Stat(data, &there) == nil && here.Dev == there.Dev {
		return "", check.Fault("name a directory on another partition", "%s is on the file system of data_dir: both would be lost at once", dir)
	}
	return c.FloorStore + note, nil
}

// checkDir looks at a directory that keeps something over updates, which is what
// kept says. It returns the one that is there: updaterd makes the last one.
func checkDir(dir, root, cure, kept string) (there, note string, err error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		dir, note = filepath.Dir(dir), " (not made yet)"
		info, err = os.Stat(dir)
	}
	switch {
	case err != nil:
		return "", "", check.Fault(cure, "%w", err)
	case !info.IsDir():
		return "", "", check.Fault(cure, "%s is no directory", dir)
	}
	var here, system unix.Stat_t
	if unix.Stat(dir, &here) == nil && unix.Stat(root, &system) == nil && here.Dev == system.Dev {
		return "", "", check.Fault(cure, "%s is on the root file system, which an update replaces: %s would be lost with it", dir, kept)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return "", "", check.Fault("mount it writable: a read-only file system, or one that was damaged, cannot keep "+kept, "%w",
			&fs.PathError{Op: "write to", Path: dir, Err: err})
	}
	return dir, note, nil
}

func checkCertificates(c *config.Config) (string, error) {
	if c.Download.CAFile == "" {
		return "the system's", nil
	}
	client, err := fetch.New(fetch.Options{CAFile: c.Download.CAFile})
	if err != nil {
		return "", check.Fault("put your authority's certificate there, in PEM, or leave ca_file empty", "%w", err)
	}
	client.Close()
	return "the system's, and " + c.Download.CAFile, nil
}

// hasSystemd tells whether systemd is the init, as sd_booted(3) does.
func hasSystemd(root string) bool {
	info, err := os.Lstat(filepath.Join(root, "run/systemd/system"))
	return err == nil && info.IsDir()
}

func checkCommands(c *config.Config) (string, error) {
	for _, command := range c.Health.Commands {
		if err := executable(command.Argv[0]); err != nil {
			return "", check.Fault(fmt.Sprintf("install the program, or correct argv of the command %q: a trial that cannot run it is rolled back", command.Name), "%w", err)
		}
	}
	return fmt.Sprintf("%d, all there", len(c.Health.Commands)), nil
}

func checkHook(c *config.Config) (string, error) {
	if len(c.Migrate.Argv) == 0 {
		return "none: data stay as they are", nil
	}
	if err := executable(c.Migrate.Argv[0]); err != nil {
		return "", check.Fault("install the program, or correct [migrate] argv", "%w", err)
	}
	return c.Migrate.Argv[0], nil
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err == nil && (!info.Mode().IsRegular() || info.Mode()&0o111 == 0) {
		err = fmt.Errorf("%s cannot be executed", path)
	}
	return err
}
