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
	if f := h.fstab(m.point); len(f) > 3 && h.exists("run/systemd/system") && !slices.Contains(strings.Split(f[3], ","), "nofail") {
		return "", Doubt("add nofail to the options of "+m.point+" in /etc/fstab; what cannot do without it needs RequiresMountsFor="+m.point+" in its unit, or a health check",
			"if %s cannot be mounted, systemd stops in emergency mode and does not start updaterd: the boot counter ends a trial in which that happens, and else the device waits for somebody", m.point)
	}
	return m.source + " at " + m.point + ", " + m.kind, nil
}

const unit = "updaterd.service"

// starting: updaterd is started when the device is. D-Bus would start it as well,
// but only when somebody asks for something, and a trial waits for nobody.
func (h *Host) starting() (string, error) {
	switch {
	case !h.exists("run/systemd/system"):
		return "not by systemd", nil
	case h.masked(unit):
		return "", Fault("run \"systemctl unmask "+unit+"\", and enable it", "%s is masked: no trial is judged, and nothing is installed", unit)
	}
	for _, dir := range []string{"etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"} {
		// A link is as good as dangling if the root is not /, so it is not followed.
		if links := h.glob(dir+"/*.wants/"+unit, dir+"/*.requires/"+unit); len(links) > 0 {
			return "by " + links[0], nil
		}
	}
	return "", Fault("run \"systemctl --root=IMAGE enable "+unit+"\" when the image is built", "no target wants %s: after a start nobody judges a trial", unit)
}

// unitPaths: systemd keeps the daemon from writing anywhere but where its unit says.
func (h *Host) unitPaths() (string, error) {
	main := []string{"etc/systemd/system/" + unit, "run/systemd/system/" + unit, "usr/lib/systemd/system/" + unit, "lib/systemd/system/" + unit}
	if !slices.ContainsFunc(main, h.exists) {
		return "no unit of systemd", nil
	}
	var dropIns []string
	for _, name := range main {
		dropIns = append(dropIns, name+".d")
	}
	if kind := h.setting(main, dropIns, "ProtectSystem"); len(kind) == 0 || kind[len(kind)-1] != "strict" {
		return "the unit does not restrict paths", nil
	}
	var paths []string
	for _, line := range h.setting(main, dropIns, "ReadWritePaths") {
		paths = append(paths, strings.Fields(line)...)
	}
	for _, dir := range []string{h.DataDir, h.FloorStore} {
		if dir != "" && !slices.ContainsFunc(paths, func(p string) bool {
			p = strings.TrimLeft(p, "-+")
			return dir == p || strings.HasPrefix(dir, strings.TrimSuffix(p, "/")+"/")
		}) {
			return "", Fault("run \"systemctl edit updaterd\" and write [Service] and ReadWritePaths="+dir,
				"systemd lets updaterd write only below %s, and %s is not", strings.Join(paths, " "), dir)
		}
	}
	return "the unit may write where the configuration says", nil
}
