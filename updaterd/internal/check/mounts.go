// SPDX-License-Identifier: Apache-2.0

package check

import (
	"slices"
	"strings"
)

// A mount is a line of /proc/self/mountinfo.
type mount struct {
	number   Number
	point    string
	kind     string
	source   string
	writable bool // the file system; a mount of it may be read-only nevertheless
	options  []string
}

// mounts lists what is mounted; of several on one point, the last one is seen.
func (h *Host) mounts() ([]mount, error) {
	var list []mount
	for line := range strings.Lines(h.text("proc/self/mountinfo")) {
		front, back, ok := strings.Cut(line, " - ")
		f, b := strings.Fields(front), strings.Fields(back)
		if !ok || len(f) < 6 || len(b) < 3 {
			continue
		}
		m := mount{number: Number(f[2]), point: unescape.Replace(f[4]), kind: b[0], source: b[1],
			options: strings.Split(f[5], ","), writable: slices.Contains(strings.Split(b[2], ","), "rw")}
		list = append(list, m)
	}
	if list == nil {
		return nil, Fault("mount /proc", "nothing is known of what is mounted")
	}
	return list, nil
}

// unescape undoes what the kernel does to names.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// holding is the mount that a path is on.
func holding(list []mount, path string) (best mount) {
	for _, m := range list {
		if m.point == "/" || path == m.point || strings.HasPrefix(path, m.point+"/") {
			if len(m.point) >= len(best.point) {
				best = m
			}
		}
	}
	return best
}

// mountedSlots: nothing is mounted from a slot but the system that runs. What is
// mounted from the target would be written under its users.
func (h *Host) mountedSlots() (string, error) {
	list, err := h.mounts()
	if err != nil {
		return "", err
	}
	booted, _ := h.Booted() // which has a check of its own
	for _, s := range h.Slots {
		_, number, err := h.Device(s.Path)
		if err != nil || number == "" {
			continue // likewise
		}
		for _, m := range list {
			if m.number == number && s.Slot != booted && (booted != "" || m.point != "/") {
				return "", Fault("take "+m.point+" out of /etc/fstab and of what mounts by itself (udisks, an automounter): nothing but updaterd may touch the slot that does not run",
					"slot %s, %s, is mounted at %s", s, s.Path, m.point)
			}
		}
	}
	return "nothing is mounted from a slot but the system that runs", nil
}

// rootMount: a root file system that is mounted for writing is not what the
// release was, byte by byte, a moment later.
func (h *Host) rootMount() (string, error) {
	list, err := h.mounts()
	if err != nil {
		return "", err
	}
	root := holding(list, "/")
	if root.writable && root.kind != "squashfs" && root.kind != "erofs" {
		return "", Fault(`put "ro" on the kernel command line in place of "rw", and among the options of / in /etc/fstab; keep what changes on the data partition, or in an overlay over single directories ("Read-only root" in docs/integrate.md)`,
			"/ (%s, %s) is mounted for writing: mounting alone changes blocks, so that deltas do not fit any more, and what is written is lost with the next update", root.source, root.kind)
	}
	return root.kind + ", read-only", nil
}

// volatile are file systems that keep nothing over a restart.
var volatile = []string{"tmpfs", "ramfs", "rootfs", "devtmpfs", "overlay"}

// dataMount: what keeps the journal is a file system of its own, on a medium, and
// no slot's.
func (h *Host) dataMount() (string, error) {
	const cure = "mount a partition that both slots share where data_dir is (\"Data partition\" in docs/integrate.md), or correct data_dir"
	list, err := h.mounts()
	if err != nil {
		return "", err
	}
	m, root := holding(list, h.DataDir), holding(list, "/")
	for _, s := range h.Slots {
		if _, number, err := h.Device(s.Path); err == nil && number != "" && number == m.number && m.point != "/" {
			return "", Fault(cure, "%s is on slot %s, which an update overwrites", h.DataDir, s)
		}
	}
	switch {
	case m.point == "/" || m.number == root.number:
		return "", Fault(cure, "%s is on the root file system, which an update replaces", h.DataDir)
	case slices.Contains(volatile, m.kind):
		return "", Fault(cure, "%s is on %s (%s), which forgets everything at a restart", h.DataDir, m.point, m.kind)
	case !m.writable || slices.Contains(m.options, "ro"):
		return "", Fault("mount it writable; if the kernel made it read-only after an error (dmesg), run fsck on it", "%s, with %s, is mounted read-only", m.point, h.DataDir)
	}
	if f := h.fstab(m.point); len(f) > 3 && h.systemd() && !slices.ContainsFunc(strings.Split(f[3], ","), waitsForNone) {
		return "", Doubt("add nofail to the options of "+m.point+" in /etc/fstab; what cannot do without it needs RequiresMountsFor="+m.point+" in its unit, or a health check",
			"if %s cannot be mounted, systemd stops in emergency mode and does not start updaterd: the boot counter ends a trial in which that happens, and else the device waits for somebody", m.point)
	}
	return m.source + " at " + m.point + ", " + m.kind, nil
}

// waitsForNone reports an option in fstab with which systemd goes on without the mount.
func waitsForNone(option string) bool {
	return option == "nofail" || option == "noauto" || option == "x-systemd.automount"
}
