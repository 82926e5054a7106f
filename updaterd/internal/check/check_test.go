// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bootctl"
)

// A board is a device in a directory, whose block devices are in memory.
type board struct {
	*Host
	t       *testing.T
	dir     string
	devices map[string][]byte
	numbers map[string]Number
	records map[string]string // slot -> digest
	bus     *fakeBus
}

type fakeBus struct {
	down, taken, silent error
	owned, activatable  []string
}

func (b *fakeBus) Names() ([]string, []string, error) { return b.owned, b.activatable, b.silent }
func (b *fakeBus) Own(string) error                   { return b.taken }
func (b *fakeBus) Close() error                       { return nil }

// ext4 is a file system's superblock, and what a change makes of it.
func ext4(seed byte, change func(super []byte)) []byte {
	disk := make([]byte, 1<<20)
	s := disk[1024:2048]
	put := func(at int, v uint32) { binary.LittleEndian.PutUint32(s[at:], v) }
	put(0x0, 64)      // inodes
	put(0x4, 256)     // blocks, of 4 KiB
	put(0x18, 2)      // so large
	put(0x20, 32768)  // blocks in a group
	put(0x28, 64)     // inodes in one
	put(0x4c, 1)      // revision
	put(0x64, 0x1)    // sparse
	put(0x108, 1.7e9) // made at
	s[0x38], s[0x39] = 0x53, 0xef
	s[0x3a] = 1 // clean
	s[0x59] = 1 // inodes of 256 bytes
	for i := range 16 {
		s[0xec+i] = seed
	}
	if change != nil {
		change(s)
	}
	return disk
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func (b *board) file(name, text string) {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *board) link(to, name string) {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Symlink(to, path); err != nil {
		b.t.Fatal(err)
	}
}

func (b *board) remove(name string) {
	b.t.Helper()
	if err := os.RemoveAll(filepath.Join(b.dir, name)); err != nil {
		b.t.Fatal(err)
	}
}

// edit replaces a text in a file.
func (b *board) edit(name, old, new string) {
	b.t.Helper()
	text := b.text(name)
	if !strings.Contains(text, old) {
		b.t.Fatalf("%s has no %q", name, old)
	}
	b.file(name, strings.ReplaceAll(text, old, new))
}

const unitText = "[Service]\nProtectSystem=strict\nReadWritePaths=-/data -/var/lib/updaterd\n"

// goodBoard is a device with nothing wrong: the system in slot a runs.
func goodBoard(t *testing.T) *board {
	b := &board{t: t, dir: t.TempDir(), bus: &fakeBus{owned: []string{busName}, activatable: []string{polkitName}}}
	b.devices = map[string][]byte{"/dev/a": ext4(7, nil), "/dev/b": ext4(7, nil), "/dev/disk": make([]byte, 16<<20)}
	b.numbers = map[string]Number{"/dev/disk": "179:0", "/dev/a": "179:1", "/dev/b": "179:2"}
	b.records = map[string]string{"rootfs.a": digest(b.devices["/dev/a"])}
	b.file("proc/self/mountinfo", "21 1 179:1 / / ro,relatime shared:1 - ext4 /dev/root ro\n"+
		"22 21 0:20 / /proc rw - proc proc rw\n23 21 0:21 / /etc rw - overlay overlay rw,lowerdir=/etc\n"+
		"24 21 179:3 / /data rw,noatime - ext4 /dev/mmcblk0p3 rw,data=ordered\n")
	b.file("proc/cmdline", "root=/dev/mmcblk0p1 ro panic=5 updaterd.slot=a\n")
	b.file("etc/fstab", "# what is mounted\n/dev/root / ext4 ro 0 0\n/dev/mmcblk0p3 /data ext4 rw,nofail 0 2\n")
	b.file("etc/systemd/system.conf.d/watchdog.conf", "[Manager]\nRuntimeWatchdogSec=30\n")
	b.file("usr/lib/systemd/system/updaterd.service", unitText)
	b.file("usr/lib/systemd/system/multi-user.target.wants/updaterd.service", unitText)
	b.file("usr/share/dbus-1/system.d/"+busName+".conf", "")
	b.file("usr/share/polkit-1/actions/org.updaterd.policy", "")
	b.file("dev/watchdog0", "")
	b.file("run/systemd/system/.keep", "")
	b.file("sys/class/rtc/rtc0/name", "")
	for i, at := range []int{8192, 12288} {
		p := fmt.Sprintf("sys/dev/block/179:0/disk%d/", i+1)
		b.file(p+"partition", "1\n")
		b.file(p+"start", fmt.Sprintln(at))
		b.file(p+"size", "4096\n")
	}
	copy(b.devices["/dev/disk"][512:], "EFI PART")
	b.Host = &Host{
		Root: b.dir, DataDir: "/data/updaterd", Now: time.Unix(1.8e9, 0), Built: time.Unix(1.7e9, 0),
		Slots:       []Slot{{"rootfs", "a", "/dev/a"}, {"rootfs", "b", "/dev/b"}},
		Environment: []Place{{"/dev/disk", 1 << 20, 0x4000}, {"/dev/disk", 2 << 20, 0x4000}},
		Booted:      func() (bootctl.Slot, error) { return "a", nil },
		Device: func(path string) (int64, Number, error) {
			d, ok := b.devices[path]
			if !ok {
				return 0, "", os.ErrNotExist
			}
			return int64(len(d)), b.numbers[path], nil
		},
		Open: func(path string) (io.ReaderAt, io.Closer, error) {
			d, ok := b.devices[path]
			if !ok {
				return nil, nil, os.ErrNotExist
			}
			return bytes.NewReader(d), io.NopCloser(nil), nil
		},
		Record: func(s Slot) (string, int64) {
			if d := b.records[s.String()]; d != "" {
				return d, 1 << 20
			}
			return "", 0
		},
		Bus: func() (Bus, error) { return b.bus, b.bus.down },
	}
	return b
}

// mounts adds a line.
func (b *board) mount(line string) {
	b.file("proc/self/mountinfo", b.text("proc/self/mountinfo")+line+"\n")
}

const data = "24 21 179:3 / /data rw,noatime - ext4 /dev/mmcblk0p3 rw,data=ordered\n"

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
	"not enabled":              {func(b *board) { b.remove("usr/lib/systemd/system/multi-user.target.wants") }, "unit's start", Failure, "no target wants updaterd.service", "systemctl --root=IMAGE enable"},
	"unit masked":              {func(b *board) { b.link("/dev/null", "etc/systemd/system/updaterd.service") }, "unit's start", Failure, "is masked", "unmask"},
	"data where the unit may not": {func(b *board) { b.edit("usr/lib/systemd/system/updaterd.service", "-/data ", "") }, "unit's paths", Failure,
		"/data/updaterd is not", "ReadWritePaths=/data/updaterd"},
	"floors where the unit may not": {func(b *board) { b.FloorStore = "/persist/updaterd" }, "unit's paths", Failure, "/persist/updaterd is not", "ReadWritePaths=/persist/updaterd"},
	"paths dropped": {func(b *board) {
		b.file("etc/systemd/system/updaterd.service.d/x.conf", "[Service]\nReadWritePaths=\nReadWritePaths=/data2\n")
	}, "unit's paths", Failure, "only below /data2", "ReadWritePaths"},
	"environment in a partition": {func(b *board) { b.Environment[1].Offset = 4<<20 - 512 }, "environment's place", Failure,
		"the copy at 0x3ffe00 of /dev/disk lies in partition disk1", "CONFIG_ENV_OFFSET"},
	"environment in the GPT":          {func(b *board) { b.Environment[0].Offset = 0x4000 }, "environment's place", Failure, "0x4000 of /dev/disk lies in the partition table", "CONFIG_ENV_OFFSET"},
	"environment in the second table": {func(b *board) { b.Environment[0].Offset = -0x4000 }, "environment's place", Failure, "lies in the partition table", "CONFIG_ENV_OFFSET"},
	"environment in the MBR": {func(b *board) { clear(b.devices["/dev/disk"]); b.Environment[0].Offset = 0 }, "environment's place", Failure,
		"0x0 of /dev/disk lies in the partition table", "CONFIG_ENV_OFFSET"},
	"nobody feeds":                     {func(b *board) { b.remove("etc/systemd/system.conf.d") }, "watchdog", Warning, "nobody feeds the watchdog", "set RuntimeWatchdogSec=30"},
	"no systemd to feed":               {func(b *board) { b.remove("run/systemd") }, "watchdog", Warning, "nobody is known to feed the watchdog", "/dev/watchdog"},
	"watchdog off":                     {func(b *board) { b.edit("etc/systemd/system.conf.d/watchdog.conf", "=30", "=off") }, "watchdog", Warning, "nobody feeds", "RuntimeWatchdogSec"},
	"no watchdog":                      {func(b *board) { b.remove("dev/watchdog0") }, "watchdog", Warning, "there is no hardware watchdog", "enable the driver"},
	"two feed":                         {func(b *board) { b.Watchdog = "/dev/null" }, "watchdog", Failure, "both updaterd (/dev/null) and systemd (RuntimeWatchdogSec=30)", "only once"},
	"watchdog missing":                 {func(b *board) { b.Watchdog = "/dev/watchdog-none" }, "watchdog", Failure, "no such file", "load the watchdog's driver"},
	"watchdog a file":                  {func(b *board) { b.Watchdog = b.dir + "/proc/cmdline" }, "watchdog", Failure, "is no character device", "name the watchdog"},
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

// TestEachCheckFindsItsFault makes each check fail by one change of a good device.
func TestEachCheckFindsItsFault(t *testing.T) {
	for _, r := range Run(List(goodBoard(t).Host)) {
		if r.Level != OK || r.Text == "" || r.Cure != "" {
			t.Errorf("on a good device: %+v", r)
		}
	}
	failing := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(spoils)) {
		s := spoils[name]
		t.Run(name, func(t *testing.T) {
			b := goodBoard(t)
			s.do(b)
			var found []string
			for _, r := range Run(List(b.Host)) {
				if r.Level == OK {
					continue
				}
				found = append(found, r.Name)
				failing[r.Name] = true
				if r.Level != s.level || !strings.Contains(r.Text, s.text) || r.Cure == "" || !strings.Contains(r.Cure, s.cure) {
					t.Errorf("%+v; want %s with %q, and the cure %q", r, s.level, s.text, s.cure)
				}
			}
			want := strings.Split(s.check, ", ")
			slices.Sort(want)
			if slices.Sort(found); !slices.Equal(found, want) {
				t.Errorf("found by %q; want %q", found, want)
			}
		})
	}
	for _, c := range List(goodBoard(t).Host) {
		if !failing[c.Name] {
			t.Errorf("nothing makes the check %q fail", c.Name)
		}
	}
}

// TestWhatIsFine: changes that are no fault.
func TestWhatIsFine(t *testing.T) {
	for name, do := range map[string]func(b *board){
		"squashfs": func(b *board) {
			b.edit("proc/self/mountinfo", "ext4 /dev/root ro", "squashfs /dev/root rw")
			b.devices["/dev/a"] = make([]byte, 4096)
			b.records = nil
		},
		"nothing on record": func(b *board) { b.records = nil },
		"a masked unit": func(b *board) {
			b.file("usr/lib/systemd/system/x.target.wants/resize-rootfs.service", "")
			b.link("/dev/null", "etc/systemd/system/resize-rootfs.service")
		},
		"data that grow":           func(b *board) { b.file("etc/systemd/system/local-fs.target.wants/systemd-growfs@data.service", "") },
		"another root of the data": func(b *board) { b.edit("usr/lib/systemd/system/updaterd.service", "strict", "full") },
		"no systemd": func(b *board) {
			b.remove("usr/lib/systemd")
			b.Watchdog = "/dev/null"
			b.remove("etc/systemd")
			b.remove("run/systemd")
		},
		"enabled by an administrator": func(b *board) {
			b.remove("usr/lib/systemd/system/multi-user.target.wants")
			b.link("/lib/systemd/system/updaterd.service", "etc/systemd/system/multi-user.target.wants/updaterd.service")
		},
		"data mounted by a unit": func(b *board) { b.edit("etc/fstab", "/dev/mmcblk0p3 /data ext4 rw,nofail 0 2\n", "") },
		"environment in a file": func(b *board) {
			b.Environment = []Place{{"/dev/a", 0, 1}}
			b.numbers["/dev/a"] = ""
			b.edit("proc/self/mountinfo", "179:1", "7:0")
		},
		"a drop-in adds paths": func(b *board) {
			b.FloorStore = "/persist/x"
			b.file("etc/systemd/system/updaterd.service.d/x.conf", "[Service]\nReadWritePaths=/persist\n")
		},
		"a drop-in hides another": func(b *board) {
			b.file("usr/lib/systemd/system/updaterd.service.d/x.conf", "[Service]\nReadWritePaths=\n")
			b.file("etc/systemd/system/updaterd.service.d/x.conf", "[Service]\n")
		},
		"daemon does not run": func(b *board) { b.bus.owned = nil },
	} {
		t.Run(name, func(t *testing.T) {
			b := goodBoard(t)
			do(b)
			for _, r := range Run(List(b.Host)) {
				if r.Level != OK {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}
