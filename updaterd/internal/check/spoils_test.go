// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"time"

	"github.com/updaterd/updaterd/bootctl"
)

// A spoil is one change of a good device, and what comes of it.
type spoil struct {
	do    func(b *board)
	check string // that finds it
	level string
	text  string // in what it says
	cure  string // in its cure
}

var spoils = map[string]spoil{
	"no /proc": {func(b *board) { b.remove("proc/self") }, "mounted slots, root file system, data partition", Failure, "nothing is known of what is mounted", "mount /proc"},
	"target mounted": {func(b *board) { b.mount("30 21 179:2 / /mnt/other rw - ext4 /dev/mmcblk0p2 rw") }, "mounted slots", Failure,
		"slot rootfs.b, /dev/b, is mounted at /mnt/other", "take /mnt/other out of /etc/fstab"},
	"root writable": {func(b *board) { b.edit("proc/self/mountinfo", "/dev/root ro", "/dev/root rw") }, "root file system", Failure,
		"/ (/dev/root, ext4) is mounted for writing", `put "ro" on the kernel command line`},
	"slot unknown": {func(b *board) { b.Booted = func() (bootctl.Slot, error) { return "", errors.New("an overlay") } }, "booted slot unchanged", Warning,
		"not known which slot runs", `the check "booted slot" first`},
	"slot unreadable": {func(b *board) { b.Slots[0].Path = "/dev/none" }, "booted slot unchanged", Failure, "read /dev/none", "rootfs.a"},
	"mounted for writing": {func(b *board) { b.devices["/dev/a"] = ext4(7, func(s []byte) { s[0x34] = 3; s[0x2f] = 0x66 }) }, "booted slot unchanged", Failure,
		"was mounted for writing 3 times, last on 2024-", "mount it read-only from the first start on"},
	"journal left": {func(b *board) { b.devices["/dev/a"] = ext4(7, func(s []byte) { s[0x60] = 4 }) }, "booted slot unchanged", Failure,
		"its journal was not replayed", "mount it read-only"},
	"orphans left": {func(b *board) { b.devices["/dev/a"] = ext4(7, func(s []byte) { s[0xe8] = 12 }) }, "booted slot unchanged", Failure,
		"orphans", "mount it read-only"},
	"resized": {func(b *board) { b.devices["/dev/a"] = ext4(7, func(s []byte) { s[0x5] = 2 }) }, "booted slot unchanged", Failure,
		"was resized: it takes 2097152 bytes, and the release's image has 1048576", "disable what resizes it"},
	"bytes changed": {func(b *board) { b.devices["/dev/a"][99999]++ }, "booted slot unchanged", Failure, "holds other bytes than were installed", "install the release anew"},
	"other seed":    {func(b *board) { b.devices["/dev/b"] = ext4(8, nil) }, "hash seeds", Warning, "different hash seeds", "hash_seed=UUID"},
	"growfs unit": {func(b *board) {
		b.link("/usr/lib/systemd/system/systemd-growfs-root.service", "etc/systemd/system/local-fs.target.wants/systemd-growfs-root.service")
	}, "growing at start", Failure, "systemd-growfs-root.service is started", `"systemctl mask systemd-growfs-root.service"`},
	"resize unit of a vendor": {func(b *board) { b.file("usr/lib/systemd/system/basic.target.wants/resize-rootfs.service", "") }, "growing at start", Failure,
		"resize-rootfs.service is started", `"systemctl mask resize-rootfs.service"`},
	"resize script": {func(b *board) { b.file("etc/rcS.d/S21resize2fs.sh", "") }, "growing at start", Failure, "/etc/rcS.d/S21resize2fs.sh makes", "leave /etc/rcS.d/S21resize2fs.sh out"},
	"growfs in fstab": {func(b *board) { b.edit("etc/fstab", "/ ext4 ro 0 0", "/ ext4 ro,x-systemd.growfs 0 0") }, "growing at start", Failure,
		"/etc/fstab makes", "take x-systemd.growfs out"},
	"fsck of the root": {func(b *board) { b.edit("etc/fstab", "/ ext4 ro 0 0", "/ ext4 ro 0 1") }, "fsck of the root", Warning, "(pass 1)", "write 0 as the last field"},
	"fsck forced":      {func(b *board) { b.edit("proc/cmdline", "panic=5", "panic=5 fsck.mode=force") }, "fsck of the root", Warning, "says fsck.mode=force", "fsck.mode=skip"},
	"data on the root": {func(b *board) { b.edit("proc/self/mountinfo", data, "") }, "data partition", Failure, "/data/updaterd is on the root file system", "mount a partition"},
	"data bound from the root": {func(b *board) { b.edit("proc/self/mountinfo", "179:3", "179:1") }, "data partition", Failure,
		"is on slot rootfs.a", "mount a partition"},
	"data on a slot": {func(b *board) { b.edit("proc/self/mountinfo", "179:3", "179:2") }, "data partition, mounted slots", Failure,
		"slot rootfs.b", ""},
	"data in memory":           {func(b *board) { b.edit("proc/self/mountinfo", "ext4 /dev/mmcblk0p3", "tmpfs tmpfs") }, "data partition", Failure, "forgets everything", "mount a partition"},
	"data read-only":           {func(b *board) { b.edit("proc/self/mountinfo", "rw,noatime", "ro,noatime") }, "data partition", Failure, "is mounted read-only", "run fsck"},
	"data after errors":        {func(b *board) { b.edit("proc/self/mountinfo", "rw,data=", "ro,data=") }, "data partition", Failure, "is mounted read-only", "run fsck"},
	"data that stop the start": {func(b *board) { b.edit("etc/fstab", ",nofail", "") }, "data partition", Warning, "if /data cannot be mounted, systemd stops in emergency mode", "add nofail"},
	"not enabled":              {func(b *board) { b.remove("usr/lib/systemd/system/multi-user.target.wants") }, "unit's start", Failure, "no target of a usual start wants updaterd.service", "systemctl --root=IMAGE enable"},
	"unit masked":              {func(b *board) { b.link("/dev/null", "etc/systemd/system/updaterd.service") }, "unit's start", Failure, "is masked", "unmask"},
	"enabled for a shell alone": {func(b *board) {
		b.remove("usr/lib/systemd/system/multi-user.target.wants")
		for _, target := range []string{"rescue", "emergency", "sysinit"} {
			b.link("/usr/lib/systemd/system/updaterd.service", "etc/systemd/system/"+target+".target.wants/updaterd.service")
		}
	}, "unit's start", Failure, "no target of a usual start wants updaterd.service", "systemctl --root=IMAGE enable"},
	"unit masked until the next start": {func(b *board) { b.link("/dev/null", "run/systemd/system/updaterd.service") }, "unit's start", Failure, "is masked", "--runtime"},
	"init script not linked": {func(b *board) { b.withoutSystemd(); b.feeding("/dev/watchdog"); b.remove("etc/rc5.d") }, "unit's start", Failure,
		"nobody judges a trial", "update-rc.d updaterd defaults"},
	"init script linked elsewhere": {func(b *board) {
		b.withoutSystemd()
		b.feeding("/dev/watchdog")
		b.remove("etc/rc5.d")
		b.link("../init.d/updaterd", "etc/rc0.d/K20updaterd")
		b.file("etc/inittab", "::sysinit:/etc/init.d/rcS\n#::respawn:/usr/bin/updaterd\n::once:/usr/bin/updaterd-other\n")
	}, "unit's start", Failure, "nobody judges a trial", "S80updaterd"},
	"nobody ends a trial": {func(b *board) { b.remove("usr/lib/systemd/system/updaterd-trial.service") }, "trial's end", Failure,
		"updaterd-trial.service is missing", "make install"},
	"end of a trial masked":             {func(b *board) { b.link("/dev/null", "etc/systemd/system/updaterd-trial.service") }, "trial's end", Failure, "is masked", "unmask"},
	"end of a trial masked for a while": {func(b *board) { b.link("/dev/null", "run/systemd/system/updaterd-trial.service") }, "trial's end", Failure, "is masked", "--runtime"},
	"end of a trial not wanted": {func(b *board) {
		b.remove("usr/lib/systemd/system/sysinit.target.wants")
		b.link("../updaterd-trial.service", "usr/lib/systemd/system/emergency.target.wants/updaterd-trial.service")
	}, "trial's end", Failure, "sysinit.target does not want updaterd-trial.service", "make install"},
	"data where the unit may not": {func(b *board) { b.edit("usr/lib/systemd/system/updaterd.service", "-/data ", "") }, "unit's paths", Failure,
		"/data/updaterd is not", "ReadWritePaths=/data/updaterd"},
	"floors where the unit may not": {func(b *board) { b.FloorStore = "/persist/updaterd" }, "unit's paths", Failure, "/persist/updaterd is not", "ReadWritePaths=/persist/updaterd"},
	"paths dropped": {func(b *board) {
		b.file("etc/systemd/system/updaterd.service.d/x.conf", "[Service]\nReadWritePaths=\nReadWritePaths=/data2\n")
	}, "unit's paths", Failure, "only below /data2", "ReadWritePaths"},
	"environment in a file where the unit may not": {func(b *board) { b.devices["/etc/env"] = nil; b.Environment = []Place{{"/etc/env", 0, 1}} }, "unit's paths", Failure,
		"/etc/env, the boot environment, is not", "ReadWritePaths=/etc/env"},
	"lock where the unit may not": {func(b *board) { b.Lock = "/etc/lock/env" }, "unit's paths", Failure,
		"/etc/lock/env, the lock of the boot environment, is not", "ReadWritePaths=/etc/lock"},
	"the usual lock, but on no tmpfs": {func(b *board) { b.remove("var/lock") }, "unit's paths", Failure, "/var/lock/fw_printenv.lock", "ReadWritePaths=/var/lock"},
	"environment in a partition": {func(b *board) { b.Environment[1].Offset = 4<<20 - 512 }, "environment's place", Failure,
		"the copy at 0x3ffe00 of /dev/disk lies in partition disk1", "CONFIG_ENV_OFFSET"},
	"environment in the GPT":          {func(b *board) { b.Environment[0].Offset = 0x4000 }, "environment's place", Failure, "0x4000 of /dev/disk lies in the partition table", "CONFIG_ENV_OFFSET"},
	"environment in the second table": {func(b *board) { b.Environment[0].Offset = -0x4000 }, "environment's place", Failure, "lies in the partition table", "CONFIG_ENV_OFFSET"},
	"environment in the MBR": {func(b *board) { clear(b.devices["/dev/disk"]); b.Environment[0].Offset = 0 }, "environment's place", Failure,
		"0x0 of /dev/disk lies in the partition table", "CONFIG_ENV_OFFSET"},
	"nobody feeds":             {func(b *board) { b.remove("etc/systemd/system.conf.d") }, "watchdog", Warning, "nobody feeds the watchdog", "set RuntimeWatchdogSec=30"},
	"no systemd to feed":       {func(b *board) { b.withoutSystemd() }, "watchdog", Warning, "nobody is known to feed the watchdog", "/dev/watchdog"},
	"watchdog off":             {func(b *board) { b.edit("etc/systemd/system.conf.d/watchdog.conf", "=30", "=off") }, "watchdog", Warning, "nobody feeds", "RuntimeWatchdogSec"},
	"no watchdog":              {func(b *board) { b.remove("dev/watchdog0") }, "watchdog", Warning, "there is no hardware watchdog", "enable the driver"},
	"two feed":                 {func(b *board) { b.feeding("/dev/watchdog0") }, "watchdog", Failure, "both updaterd (/dev/watchdog0) and systemd (RuntimeWatchdogSec=30, /dev/watchdog0)", "only once"},
	"two feed under two names": {func(b *board) { b.feeding("/dev/watchdog") }, "watchdog", Failure, "both updaterd (/dev/watchdog) and systemd", "only once"},
	"two feed the second one": {func(b *board) {
		b.feeding("/dev/watchdog1")
		b.file("etc/systemd/system.conf", "[Manager]\nWatchdogDevice=/dev/watchdog1\n")
	}, "watchdog", Failure, "both updaterd (/dev/watchdog1) and systemd (RuntimeWatchdogSec=30, /dev/watchdog1)", "only once"},
	"watchdog off in seconds":          {func(b *board) { b.edit("etc/systemd/system.conf.d/watchdog.conf", "=30", "=0s") }, "watchdog", Warning, "nobody feeds", "RuntimeWatchdogSec"},
	"watchdog off in words":            {func(b *board) { b.edit("etc/systemd/system.conf.d/watchdog.conf", "=30", "=0min 0 s") }, "watchdog", Warning, "nobody feeds", "RuntimeWatchdogSec"},
	"watchdog missing":                 {func(b *board) { b.Watchdog = "/dev/watchdog-none" }, "watchdog", Failure, "no such file", "load the watchdog's driver"},
	"watchdog a file":                  {func(b *board) { b.Watchdog = "/proc/cmdline" }, "watchdog", Failure, "is no character device", "name the watchdog"},
	"clock in the past":                {func(b *board) { b.Now = time.Unix(0, 0) }, "clock", Warning, "the clock says 1970-01-01 00:00 UTC, before 2023-", "timedatectl"},
	"clock behind a confirmed release": {func(b *board) { b.TimeFloor = time.Unix(1.9e9, 0) }, "clock", Warning, "before 2030-", "timedatectl"},
	"no clock at all":                  {func(b *board) { b.Built = time.Time{}; b.remove("sys/class/rtc") }, "clock", Warning, "there is no RTC", "SOURCE_DATE_EPOCH"},
	"no bus policy":                    {func(b *board) { b.remove("usr/share/dbus-1") }, "message bus", Failure, "nobody may be " + busName, "install it"},
	"no polkit actions":                {func(b *board) { b.remove("usr/share/polkit-1") }, "message bus", Failure, "only root may ask", "install it"},
	"no bus":                           {func(b *board) { b.bus.down = errors.New("no such socket") }, "message bus", Failure, "no such socket", "install and start dbus"},
	"bus is silent":                    {func(b *board) { b.bus.silent = errors.New("no answer") }, "message bus", Failure, "no answer", "log of dbus"},
	"name refused": {func(b *board) { b.bus.owned, b.bus.taken = nil, errors.New("access denied") }, "message bus", Failure,
		"the name " + busName + " cannot be taken: access denied", "reload the bus"},
	"no polkit": {func(b *board) { b.bus.activatable = nil }, "message bus", Warning, "there is no polkit", "install polkit"},
}
