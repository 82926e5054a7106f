// SPDX-License-Identifier: Apache-2.0

package check

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/updaterd/updaterd/bootctl"
)

// A Host is a device as the checks see it.
type Host struct {
	// Root is where /proc, /sys, /etc, /usr and /run are seen: "/" on a device.
	Root string
	// Slots are those with a device of their own.
	Slots []Slot
	// Environment lists the places of the copies of the boot environment.
	Environment []Place
	// Lock is the lock file of the boot environment; "" if it is not known.
	Lock string
	// DataDir and FloorStore keep something over updates; FloorStore may be "".
	DataDir, FloorStore string
	// Booted is the slot that runs, if that is proven.
	Booted func() (bootctl.Slot, error)
	// Device tells the size and the number of the block device, or the file, at a
	// path; Open opens it for reading.
	Device func(path string) (size int64, number Number, err error)
	Open   func(path string) (io.ReaderAt, io.Closer, error)
	// Record is what is known of what a slot holds; "" if nothing is.
	Record func(slot Slot) (digest string, size int64)
	// Watchdog is the device that updaterd is to feed; "" if none.
	Watchdog string
	// Bus connects to the message bus.
	Bus func() (Bus, error)
	Now time.Time
	// Built is when the running image was made, TimeFloor the earliest time that
	// it can be; either may be zero.
	Built, TimeFloor time.Time
}

// A Slot is one of two of a class.
type Slot struct {
	Class string
	Slot  bootctl.Slot
	Path  string
}

func (s Slot) String() string { return s.Class + "." + string(s.Slot) }

// A Place is where a copy of the boot environment lies.
type Place struct {
	Path         string
	Offset, Size int64 // a negative offset counts from the end
}

// A Number names a block device, as 179:2. It is "" for a file.
type Number string

// A Bus is the message bus of the system.
type Bus interface {
	// Names lists who is there, and who can be started.
	Names() (owned, activatable []string, err error)
	// Own takes a name that nobody has, and gives it back.
	Own(name string) error
	Close() error
}

// List is all checks of a host.
func List(h *Host) []Check {
	return []Check{
		{"mounted slots", h.mountedSlots},
		{"root file system", h.rootMount},
		{"booted slot unchanged", h.unchanged},
		{"hash seeds", h.hashSeeds},
		{"growing at start", h.growing},
		{"fsck of the root", h.fsck},
		{"data partition", h.dataMount},
		{"unit's start", h.starting},
		{"trial's end", h.trialEnd},
		{"unit's paths", h.unitPaths},
		{"environment's place", h.environmentPlace},
		{"watchdog", h.watchdog},
		{"clock", h.clock},
		{"message bus", h.bus},
	}
}

// maxText bounds what is read of one file.
const maxText = 1 << 20

func (h *Host) path(name string) string { return filepath.Join(h.Root, name) }

// text is a file below the root; "" if it cannot be read.
func (h *Host) text(name string) string {
	f, err := os.Open(h.path(name))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxText))
	return string(b)
}

func (h *Host) exists(name string) bool {
	_, err := os.Stat(h.path(name))
	return err == nil
}

// glob lists what fits patterns, without the root, sorted.
func (h *Host) glob(patterns ...string) (names []string) {
	for _, p := range patterns {
		found, _ := filepath.Glob(h.path(p)) // only a bad pattern is an error
		for _, path := range found {
			names = append(names, "/"+strings.TrimPrefix(strings.TrimPrefix(path, filepath.Clean(h.Root)), "/"))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// setting is the last value of a key in files of systemd's form: the main file,
// then those in the directories NAME.d in the order of their names, of which one
// in /etc hides those of the same name elsewhere. A list collects all values, and
// an empty one drops those before it.
func (h *Host) setting(main []string, key string) (values []string) {
	var files []string
	for _, name := range main {
		if h.exists(name) {
			files = append(files, name)
			break
		}
	}
	byName := map[string]string{}
	for _, name := range main { // the strongest first
		for _, path := range h.glob(name + ".d/*.conf") {
			if base := filepath.Base(path); byName[base] == "" {
				byName[base] = path
			}
		}
	}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		files = append(files, byName[name])
	}
	for _, path := range files {
		for line := range strings.Lines(h.text(path)) {
			k, v, ok := strings.Cut(strings.TrimSpace(line), "=")
			if !ok || strings.TrimSpace(k) != key {
				continue
			}
			if v = strings.TrimSpace(v); v == "" {
				values = nil
			} else {
				values = append(values, v)
			}
		}
	}
	return values
}

// systemd tells whether it is the init.
func (h *Host) systemd() bool { return h.exists("run/systemd/system") }

// resolve follows the links in a path, as far as it exists.
func (h *Host) resolve(path string) string {
	real, err := filepath.EvalSymlinks(h.path(path))
	if err != nil {
		if dir := filepath.Dir(path); dir != path {
			return filepath.Join(h.resolve(dir), filepath.Base(path))
		}
		return path
	}
	root, err := filepath.EvalSymlinks(h.Root)
	if err != nil {
		return path
	}
	return "/" + strings.TrimPrefix(strings.TrimPrefix(real, root), "/")
}
