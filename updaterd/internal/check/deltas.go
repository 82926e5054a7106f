// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/updaterd/updaterd/bundle/fsmap/ext4super"
)

// rootClass is the class of the slots that are mounted on /.
const rootClass = "rootfs"

// booted is the slot that is mounted on /.
func (h *Host) booted() (Slot, error) {
	booted, err := h.Booted()
	for _, s := range h.Slots {
		if err == nil && s.Class == rootClass && s.Slot == booted {
			return s, nil
		}
	}
	return Slot{}, Doubt("see to the check \"booted slot\" first", "it is not known which slot runs")
}

// super reads the superblock of a slot; nil if that is not ext4.
func (h *Host) super(s Slot) (*ext4super.Superblock, error) {
	r, c, err := h.Open(s.Path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	e, err := ext4super.Read(r)
	if errors.Is(err, ext4super.ErrNone) {
		return nil, nil // another file system, which nothing resizes or counts mounts of
	}
	return e, err
}

// unchanged: the slot that runs is what was installed, byte by byte. Deltas are
// made from that.
func (h *Host) unchanged() (string, error) {
	const why = "deltas do not fit what was changed, and download it in full"
	s, err := h.booted()
	if err != nil {
		return "", err
	}
	digest, size := h.Record(s)
	e, err := h.super(s)
	if err != nil {
		return "", Fault("see to the check \"slot "+s.String()+"\" first", "read %s: %w", s.Path, err)
	}
	if e != nil {
		what := fmt.Sprintf("was mounted for writing %d times", e.MountCount)
		if !e.Mounted.IsZero() {
			what += e.Mounted.Format(", last on 2006-01-02 15:04")
		}
		if len(e.Unfinished) > 0 {
			what += "; " + strings.Join(e.Unfinished, ", and ")
		}
		if e.Resized || size > 0 && e.Size() > size {
			return "", Fault("disable what resizes it at start (see \"growing at start\"), and give the image its final size when it is built; install it anew",
				"the file system in %s was resized: it takes %d bytes, and the release's image has %d; %s", s, e.Size(), size, why)
		}
		if e.WasMounted() {
			return "", Fault("mount it read-only from the first start on, in an initramfs too; build the image with mke2fs -d and do not mount it; install it anew",
				"the file system in %s %s: %s", s, what, why)
		}
	}
	if digest == "" {
		return "nothing is on record about what " + s.String() + " held when it was made; its superblock shows no change", nil
	}
	r, c, err := h.Open(s.Path)
	if err != nil {
		return "", Fault("see to the check \"slot "+s.String()+"\" first", "%w", err)
	}
	defer c.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(r, 0, size)); err != nil {
		return "", Fault("look at the storage (dmesg); it may be worn", "read %s: %w", s.Path, err)
	}
	if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); got != digest {
		return "", Fault("find out what writes to it: a remount, fsck, or dd; install the release anew",
			"slot %s holds other bytes than were installed: %s", s, why)
	}
	return s.String() + " is what was installed, byte by byte", nil
}

// hashSeeds: a build that takes a random one each time orders every directory anew.
func (h *Host) hashSeeds() (string, error) {
	seeds := map[string]string{}
	for _, s := range h.Slots {
		if s.Class != rootClass {
			continue
		}
		if e, err := h.super(s); err == nil && e != nil {
			seeds[string(s.Slot)] = e.HashSeed
		}
	}
	switch {
	case len(seeds) < 2:
		return "not both slots hold ext4", nil
	case seeds["a"] != seeds["b"]:
		return "", Doubt("give every build the same one: mke2fs -E hash_seed=UUID -U UUID (\"updater-bundle diff\" tells what it costs)",
			"the two slots hold ext4 with different hash seeds, %s and %s: a delta has every large directory in it", seeds["a"], seeds["b"])
	}
	return "the same in both slots", nil
}

// growers are the names of what makes a root file system larger at the first start.
var growers = regexp.MustCompile(`(?i)growfs-root|growfs@-\.|resize[-_]?(2fs|root|fs|part)|(grow|expand|extend)[-_]?(root|part)`)

// growing: nothing resizes the root file system when the device starts.
func (h *Host) growing() (string, error) {
	const harm = "makes the root file system larger at the first start: no delta fits after that"
	for _, path := range h.glob("etc/systemd/system/*.wants/*", "etc/systemd/system/*.requires/*", "usr/lib/systemd/system/*.wants/*", "lib/systemd/system/*.wants/*",
		"run/systemd/generator*/*.wants/*", "run/systemd/generator*/*.requires/*", "etc/init.d/S*", "etc/rc?.d/S*") {
		name := filepath.Base(path)
		if !growers.MatchString(name) || h.masked(name) {
			continue
		}
		if strings.Contains(path, "/systemd/") {
			return "", Fault("run \"systemctl mask "+name+"\" when the image is built", "%s is started at every start, and %s", name, harm)
		}
		return "", Fault("leave "+path+" out of the image", "%s %s", path, harm)
	}
	if fields := h.fstab("/"); len(fields) > 3 && strings.Contains(fields[3], "x-systemd.growfs") {
		return "", Fault("take x-systemd.growfs out of the options of / in /etc/fstab", "/etc/fstab %s", harm)
	}
	return "nothing makes the root file system larger", nil
}

// fstab is the line of a mount point.
func (h *Host) fstab(point string) []string {
	for line := range strings.Lines(h.text("etc/fstab")) {
		if f := strings.Fields(line); len(f) > 1 && !strings.HasPrefix(f[0], "#") && f[1] == point {
			return f
		}
	}
	return nil
}

// fsck: a check that repairs, or only counts, writes to the root file system.
func (h *Host) fsck() (string, error) {
	for _, word := range strings.Fields(h.text("proc/cmdline")) {
		if word == "fsck.mode=force" || word == "fsck.repair=yes" {
			return "", Doubt("take it off the kernel command line, or write fsck.mode=skip", "the kernel command line says %s: fsck writes to the root file system before it is mounted", word)
		}
	}
	if f := h.fstab("/"); len(f) > 5 && f[5] != "0" && f[2] != "squashfs" && f[2] != "erofs" {
		return "", Doubt("write 0 as the last field of the line of / in /etc/fstab", "/etc/fstab has the root file system checked at every start (pass %s): what fsck repairs is no longer what was installed", f[5])
	}
	return "the root file system is not checked at start", nil
}
