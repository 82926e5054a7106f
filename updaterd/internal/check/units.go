// SPDX-License-Identifier: Apache-2.0

package check

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	unit = "updaterd.service"
	// trialUnit ends a trial whose start never comes to the daemon.
	trialUnit = "updaterd-trial.service"
)

// unitDirs are where systemd looks for units, the strongest first. What is in
// /run is gone after the next start.
var (
	unitDirs    = []string{"etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}
	lastingDirs = []string{"etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}
)

// unitFiles are the places of a unit's file.
func unitFiles(name string) (files []string) {
	for _, dir := range unitDirs {
		files = append(files, dir+"/"+name)
	}
	return files
}

// masked reports that a unit is not started whoever wants it.
func (h *Host) masked(unit string) bool {
	for _, file := range unitFiles(unit) {
		if _, err := os.Lstat(h.path(file)); err != nil {
			continue
		}
		link, err := os.Readlink(h.path(file))
		return err == nil && link == os.DevNull
	}
	return false
}

// unmask is how to undo that.
func unmask(name string) string {
	return "run \"systemctl unmask " + name + "\" (with --runtime if the mask is in /run)"
}

// starting: updaterd is started when the device is. D-Bus would start it as well,
// but only when somebody asks for something, and a trial waits for nobody.
func (h *Host) starting() (string, error) {
	switch {
	case !h.systemd():
		return h.startedByScript()
	case h.masked(unit):
		return "", Fault(unmask(unit)+", and enable it", "%s is masked: no trial is judged, and nothing is installed", unit)
	}
	for _, dir := range lastingDirs {
		// A link is as good as dangling if the root is not /, so it is not followed.
		for _, link := range h.glob(dir+"/*.wants/"+unit, dir+"/*.requires/"+unit) {
			by, _, _ := strings.Cut(filepath.Base(filepath.Dir(link)), ".target.")
			if !slices.Contains(otherStarts, by) {
				return "by " + link, nil
			}
		}
	}
	return "", Fault("run \"systemctl --root=IMAGE enable "+unit+"\" when the image is built", "no target of a usual start wants %s: after a start nobody judges a trial", unit)
}

// otherStarts are the targets of starts that end in a shell, and the one that the
// unit itself waits for: systemd drops one of two units that wait for each other.
var otherStarts = []string{"rescue", "emergency", "sysinit"}

// startedByScript is starting without systemd: under sysvinit, BusyBox's init or
// OpenRC, or by a line of the integrator's own.
func (h *Host) startedByScript() (string, error) {
	if links := h.glob("etc/rc[2-5].d/S*updaterd", "etc/init.d/S*updaterd", "etc/runlevels/*/updaterd"); len(links) > 0 {
		return "by " + links[0], nil
	}
	for _, file := range []string{"etc/inittab", "etc/init.d/rcS", "etc/rc.local"} {
		for line := range strings.Lines(h.text(file)) {
			words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\n:;&\"'", r) })
			if !strings.HasPrefix(strings.TrimSpace(line), "#") &&
				slices.ContainsFunc(words, func(w string) bool { return filepath.Base(strings.TrimPrefix(w, "-")) == "updaterd" }) {
				return "by /" + file, nil
			}
		}
	}
	return "", Fault("link the init script: \"update-rc.d updaterd defaults\", or under BusyBox install it as /etc/init.d/S80updaterd (\"make install INIT=sysvinit INITSCRIPT=S80updaterd\")",
		"there is no systemd, and neither a link in /etc/rc2.d to rc5.d nor a script /etc/init.d/S…updaterd starts updaterd: after a start nobody judges a trial")
}

// trialEnd: systemd can stop before it has started the daemon, in emergency mode
// or for what it waits for without end, and goes on feeding the watchdog there.
func (h *Host) trialEnd() (string, error) {
	const harm = "a trial in which systemd stops before it starts updaterd stays for ever"
	const cure = "install it as \"make install\" does, with its link in /usr/lib/systemd/system/sysinit.target.wants"
	switch {
	case !h.systemd():
		return "no systemd that could stop half way and go on feeding the watchdog", nil
	case h.masked(trialUnit):
		return "", Fault(unmask(trialUnit), "%s is masked: %s", trialUnit, harm)
	case !slices.ContainsFunc(unitFiles(trialUnit), h.exists):
		return "", Fault(cure, "%s is missing: %s", trialUnit, harm)
	}
	for _, dir := range lastingDirs {
		if links := h.glob(dir + "/sysinit.target.wants/" + trialUnit); len(links) > 0 {
			return "by " + links[0], nil
		}
	}
	return "", Fault(cure, "sysinit.target does not want %s: %s", trialUnit, harm)
}

// A written is a path that the daemon writes to.
type written struct {
	path string
	what string // "" for a directory of the configuration
	open string // what the unit has to name
}

// writes lists them. An environment on a device is no matter of paths.
func (h *Host) writes() []written {
	list := []written{{path: h.DataDir, open: h.DataDir}}
	if h.FloorStore != "" {
		list = append(list, written{path: h.FloorStore, open: h.FloorStore})
	}
	for _, e := range h.Environment {
		if _, number, err := h.Device(e.Path); err == nil && number == "" && filepath.IsAbs(e.Path) {
			list = append(list, written{e.Path, ", the boot environment,", e.Path})
		}
	}
	if filepath.IsAbs(h.Lock) { // made anew at every start
		list = append(list, written{h.Lock, ", the lock of the boot environment,", filepath.Dir(h.Lock)})
	}
	return list
}

// unitPaths: systemd keeps the daemon from writing anywhere but where its unit says.
func (h *Host) unitPaths() (string, error) {
	main := unitFiles(unit)
	if !slices.ContainsFunc(main, h.exists) {
		return "no unit of systemd", nil
	}
	if kind := h.setting(main, "ProtectSystem"); len(kind) == 0 || kind[len(kind)-1] != "strict" {
		return "the unit does not restrict paths", nil
	}
	var paths []string
	for _, line := range h.setting(main, "ReadWritePaths") {
		paths = append(paths, strings.Fields(line)...)
	}
	allowed := append(slices.Clone(paths), "/dev") // which strict leaves as it is
	for _, w := range h.writes() {
		if !slices.ContainsFunc(allowed, func(p string) bool { return h.below(w.path, strings.TrimLeft(p, "-+")) }) {
			return "", Fault("run \"systemctl edit updaterd\" and write [Service] and ReadWritePaths="+w.open,
				"systemd lets updaterd write only below %s, and %s%s is not", strings.Join(paths, " "), w.path, w.what)
		}
	}
	return "the unit may write where the configuration says", nil
}

// below reports that a path is dir or in it, with links followed, as systemd does.
func (h *Host) below(path, dir string) bool {
	path, dir = h.resolve(path), h.resolve(dir)
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
