// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
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

const unitText = "[Service]\nProtectSystem=strict\nReadWritePaths=-/data -/var/lib/updaterd -/run/lock\n"

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
	b.file("usr/lib/systemd/system/updaterd-trial.service", "[Service]\n")
	b.link("../updaterd-trial.service", "usr/lib/systemd/system/sysinit.target.wants/updaterd-trial.service")
	b.file("run/lock/.keep", "")
	b.link("../run/lock", "var/lock")
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
		Lock:        "/var/lock/fw_printenv.lock",
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

// withoutSystemd makes it a device that sysvinit starts.
func (b *board) withoutSystemd() {
	b.remove("run/systemd")
	b.link("../init.d/updaterd", "etc/rc5.d/S80updaterd")
}

// feeding lets updaterd feed a watchdog that is there.
func (b *board) feeding(device string) {
	b.remove(device)
	b.link(os.DevNull, device)
	b.Watchdog = device
}

// mounts adds a line.
func (b *board) mount(line string) {
	b.file("proc/self/mountinfo", b.text("proc/self/mountinfo")+line+"\n")
}

const data = "24 21 179:3 / /data rw,noatime - ext4 /dev/mmcblk0p3 rw,data=ordered\n"

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
			b.feeding("/dev/watchdog")
			b.remove("etc/systemd")
			b.withoutSystemd()
		},
		"BusyBox": func(b *board) {
			b.withoutSystemd()
			b.feeding("/dev/watchdog")
			b.remove("etc/rc5.d")
			b.file("etc/init.d/S80updaterd", "")
		},
		"inittab": func(b *board) {
			b.withoutSystemd()
			b.feeding("/dev/watchdog")
			b.remove("etc/rc5.d")
			b.file("etc/inittab", "# updaterd\n::respawn:-/usr/bin/updaterd --config /etc/x.toml\n")
		},
		"another watchdog for updaterd": func(b *board) { b.feeding("/dev/watchdog1") },
		"another watchdog for systemd": func(b *board) {
			b.feeding("/dev/watchdog")
			b.file("usr/lib/systemd/system.conf.d/device.conf", "[Manager]\nWatchdogDevice=/dev/watchdog1\n")
		},
		"a watchdog that systemd lets be": func(b *board) {
			b.feeding("/dev/watchdog")
			b.edit("etc/systemd/system.conf.d/watchdog.conf", "=30", "=0min")
		},
		"data mounted by hand":   func(b *board) { b.edit("etc/fstab", "nofail", "noauto") },
		"data mounted on demand": func(b *board) { b.edit("etc/fstab", "nofail", "x-systemd.automount") },
		"environment in a file under a link": func(b *board) {
			b.devices["/var/env"] = nil
			b.Environment = []Place{{"/var/env", 0, 1}}
			b.file("data/env", "")
			b.link("../data/env", "var/env")
		},
		"lock among the devices": func(b *board) { b.Lock = "/dev/shm/lock" },
		"a mask that was overruled": func(b *board) {
			b.link("/dev/null", "run/systemd/system/updaterd.service")
			b.file("etc/systemd/system/updaterd.service", unitText)
		},
		"enabled by an administrator": func(b *board) {
			b.remove("usr/lib/systemd/system/multi-user.target.wants")
			b.link("/lib/systemd/system/updaterd.service", "etc/systemd/system/multi-user.target.wants/updaterd.service")
		},
		"data mounted by a unit": func(b *board) { b.edit("etc/fstab", "/dev/mmcblk0p3 /data ext4 rw,nofail 0 2\n", "") },
		"environment in a file": func(b *board) {
			b.Environment = []Place{{"/dev/a", 0, 1}} // in which every unit may write
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

func TestNamesOfWatchdogs(t *testing.T) {
	b := goodBoard(t)
	b.file("dev/watchdog1", "")
	b.link("watchdog1", "dev/soc")
	for path, want := range map[string]string{"/dev/watchdog": "/dev/watchdog0", "/dev/watchdog0": "/dev/watchdog0", "/dev/watchdog1": "/dev/watchdog1", "/dev/soc": "/dev/watchdog1", "/dev/none": "/dev/none"} {
		if got := b.watchdogName(path); got != want {
			t.Errorf("watchdogName(%s) = %s; want %s", path, got, want)
		}
	}
}
