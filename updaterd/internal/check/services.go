// SPDX-License-Identifier: Apache-2.0

package check

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	busName    = "org.updaterd.Updater1"
	polkitName = "org.freedesktop.PolicyKit1"
)

// manager is the last value of a key in systemd's own configuration; "" if there is none.
func (h *Host) manager(key string) string {
	main := []string{"etc/systemd/system.conf", "run/systemd/system.conf", "usr/lib/systemd/system.conf", "lib/systemd/system.conf"}
	values := h.setting(main, key)
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// systemdFeeds is what systemd is told about the hardware watchdog, and which
// one that is; "" if nothing.
func (h *Host) systemdFeeds() (timeout, device string) {
	timeout = h.manager("RuntimeWatchdogSec")
	zero := strings.Contains(timeout, "0") && !strings.ContainsAny(timeout, "123456789") // "0s", "0min 0s"
	if zero || !h.systemd() || timeout == "off" || timeout == "infinity" {
		return "", ""
	}
	return timeout, cmp.Or(h.manager("WatchdogDevice"), "/dev/watchdog0")
}

// watchdogName is the one name of a watchdog: the kernel gives the first one two.
func (h *Host) watchdogName(path string) string {
	if !watchdogs.MatchString(path) {
		path = h.resolve(path)
	}
	if path == "/dev/watchdog" {
		return "/dev/watchdog0"
	}
	return path
}

var watchdogs = regexp.MustCompile(`^/dev/watchdog[0-9]*$`)

// watchdog does not open the device, because that would start it.
func (h *Host) watchdog() (string, error) {
	const one = "a watchdog can be opened only once: leave [watchdog] device empty, or RuntimeWatchdogSec off, or name another device to one of them (WatchdogDevice)"
	timeout, device := h.systemdFeeds()
	if h.Watchdog == "" {
		devices := h.glob("dev/watchdog*")
		switch {
		case len(devices) == 0:
			return "", Doubt("enable the driver of the watchdog in the kernel; without one, a system that hangs in its trial stays", "there is no hardware watchdog")
		case !h.systemd():
			return "", Doubt("set [watchdog] device = \"/dev/watchdog\" in updaterd.toml, or let another program feed it", "nobody is known to feed the watchdog, and there is no systemd to: a system that hangs in its trial stays")
		case timeout == "":
			return "", Doubt("set RuntimeWatchdogSec=30 in /etc/systemd/system.conf, or [watchdog] device = \"/dev/watchdog\" in updaterd.toml",
				"nobody feeds the watchdog, so it never bites: a system that hangs in its trial stays")
		}
		return "systemd feeds it (RuntimeWatchdogSec=" + timeout + ")", nil
	}
	info, err := os.Stat(h.path(h.Watchdog))
	switch {
	case err != nil:
		return "", Fault("load the watchdog's driver, or leave [watchdog] device empty if systemd has it", "%w", err)
	case info.Mode()&os.ModeCharDevice == 0:
		return "", Fault("name the watchdog, such as /dev/watchdog", "%s is no character device", h.Watchdog)
	case timeout != "" && h.watchdogName(h.Watchdog) == h.watchdogName(device):
		return "", Fault(one, "both updaterd (%s) and systemd (RuntimeWatchdogSec=%s, %s) are to feed the watchdog", h.Watchdog, timeout, device)
	}
	return h.Watchdog + ", fed by updaterd", nil
}

// clock: it is not before the image was made.
func (h *Host) clock() (string, error) {
	const day = "2006-01-02 15:04 UTC"
	floor := h.Built
	if h.TimeFloor.After(floor) {
		floor = h.TimeFloor
	}
	rtc := "an RTC"
	if len(h.glob("sys/class/rtc/rtc*")) == 0 {
		rtc = "no RTC"
	}
	switch {
	case floor.IsZero() && rtc == "no RTC":
		return "", Doubt("set the time of /etc/os-release to that of the build (SOURCE_DATE_EPOCH), so that it is a floor",
			"there is no RTC, and the image does not tell when it was made: until the network has told the time, certificates cannot be judged")
	case h.Now.Before(floor):
		return "", Doubt("set it (\"timedatectl\", or an RTC with a battery); until then updaterd takes the time floor",
			"the clock says %s, before %s, when this image was made or the last release confirmed", h.Now.UTC().Format(day), floor.UTC().Format(day))
	}
	return fmt.Sprintf("%s; not before %s", rtc, floor.UTC().Format(day)), nil
}

// bus: applications reach the daemon, and somebody decides who may do what.
func (h *Host) bus() (string, error) {
	for _, f := range []struct{ dirs, name, what string }{
		{"usr/share/dbus-1/system.d etc/dbus-1/system.d", busName + ".conf", "the policy of the message bus: without it nobody may be " + busName},
		{"usr/share/polkit-1/actions", "org.updaterd.policy", "the actions of polkit: without them only root may ask for anything"},
	} {
		dirs := strings.Fields(f.dirs)
		if !slices.ContainsFunc(dirs, func(dir string) bool { return h.exists(filepath.Join(dir, f.name)) }) {
			return "", Fault("install it, as \"make install\" does", "/%s/%s is missing, %s", dirs[0], f.name, f.what)
		}
	}
	conn, err := h.Bus()
	if err != nil {
		return "", Fault("install and start dbus; a trial is judged without it, and nobody can ask for an update", "%w", err)
	}
	defer conn.Close()
	owned, activatable, err := conn.Names()
	if err != nil {
		return "", Fault("look at the log of dbus", "%w", err)
	}
	text := "updaterd is on it"
	if !slices.Contains(owned, busName) {
		if err := conn.Own(busName); err != nil {
			return "", Fault("reload the bus (\"systemctl reload dbus\"), and run this as root", "the name %s cannot be taken: %w", busName, err)
		}
		text = "the name is free, updaterd does not run"
	}
	if !slices.Contains(owned, polkitName) && !slices.Contains(activatable, polkitName) {
		return "", Doubt("install polkit, if programs of other users are to ask for updates", "there is no polkit: only root may ask for updates")
	}
	return text, nil
}

// environmentPlace: no copy of the boot environment lies in a partition, or in the
// partition table, of the disk that it is on.
func (h *Host) environmentPlace() (string, error) {
	const cure = "move it (CONFIG_ENV_OFFSET, CONFIG_ENV_OFFSET_REDUND) into the gap before the first partition, or move the partition; then write fw_env.config alike"
	for _, e := range h.Environment {
		size, number, err := h.Device(e.Path)
		if err != nil || number == "" {
			continue // a file, or its own check says so
		}
		from := e.Offset
		if from < 0 {
			from += size
		}
		dir := "sys/dev/block/" + string(number)
		if h.exists(dir + "/partition") {
			continue // a partition is its own; that it is no slot's is checked with the slots
		}
		parts := h.glob(dir + "/*/partition")
		for _, p := range parts {
			p = filepath.Dir(p)
			// In sectors of 512 bytes, whatever the disk's are.
			start, length := h.number(p+"/start")*512, h.number(p+"/size")*512
			if from < start+length && start < from+e.Size {
				return "", Fault(cure, "the copy at %#x of %s lies in partition %s", from, e.Path, filepath.Base(p))
			}
		}
		if len(parts) > 0 {
			if table := h.table(e.Path); from < table || table > 512 && from+e.Size > size-table+512 {
				return "", Fault(cure, "the copy at %#x of %s lies in the partition table", from, e.Path)
			}
		}
	}
	return "clear of partitions and of their table", nil
}

// number is a number in sysfs; 0 if there is none.
func (h *Host) number(name string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(h.text(name)), 10, 64)
	return n
}

// table is how much of a disk its partition table takes: a sector, or with a GPT 33
// more, and those again, without the first, at the end.
func (h *Host) table(path string) int64 {
	const sector = 512
	r, c, err := h.Open(path)
	if err != nil {
		return sector
	}
	defer c.Close()
	var sign [8]byte
	if _, err := r.ReadAt(sign[:], sector); err == nil && string(sign[:]) == "EFI PART" {
		return 34 * sector
	}
	return sector
}
