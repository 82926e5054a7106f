// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updaterd/updaterd/qemu/uboot"
)

// A Flavour is a kind of guest.
type Flavour string

const (
	// Systemd is a Debian system with systemd, udev, D-Bus and polkit.
	Systemd Flavour = "systemd"
	// Small is busybox with a D-Bus daemon, for tests with many starts. It has no polkit.
	Small Flavour = "small"
)

// Broken says what is wrong with a system.
type Broken string

const (
	// Healthy systems pass their health check.
	Healthy Broken = ""
	// BrokenHealth: HealthCommand fails and says why.
	BrokenHealth Broken = "health"
	// BrokenInit: there is no init that can be started; the kernel panics.
	BrokenInit Broken = "init"
	// BrokenHang: user space stops for good as soon as the hardware watchdog is open.
	BrokenHang Broken = "hang"
	// BrokenMount: fstab names a device that is not there, so systemd stops in
	// emergency mode. Only of a system with systemd.
	BrokenMount Broken = "mount"
	// BrokenStuck: a unit that others wait for never finishes starting, so that
	// systemd starts no service. Only of a system with systemd.
	BrokenStuck Broken = "stuck"
)

// HealthCommand is a program in every guest that succeeds, unless the system is BrokenHealth.
const HealthCommand = "/usr/lib/updaterd-test/health"

// HealthMessage is what HealthCommand prints when it fails.
const HealthMessage = "the application does not answer"

// Root describes a root file system.
type Root struct {
	Flavour  Flavour
	Packages Packages // Base if ""
	// Version goes into os-release as IMAGE_VERSION.
	Version string
	Broken  Broken
	// Files are added last. A unit updaterd.service among them is enabled.
	Files []File
	// Size of the image; the flavour's ImageSize if 0.
	Size int64
}

// A File is put into a root file system, owned by root.
type File struct {
	Path string // absolute
	Mode int64  // 0644 if 0
	// Content is what it holds, unless Link makes it a symbolic link.
	Content []byte
	Link    string
}

// ImageSize is the size of an image of this flavour.
func (f Flavour) ImageSize() int64 {
	if f == Systemd {
		return 152 << 20
	}
	return 48 << 20
}

//go:embed all:files
var guestFiles embed.FS

// RootFS builds the ext4 image of a root file system and returns its path. The
// kernel and the initramfs are in /boot.
func (b *Builder) RootFS(ctx context.Context, r Root) (string, error) {
	if r.Packages == "" {
		r.Packages = Base
	}
	if r.Size == 0 {
		r.Size = r.Flavour.ImageSize()
	}
	base, err := b.baseRoot(ctx, r)
	if err != nil {
		return "", err
	}
	kernel, err := b.Kernel(ctx, r.Packages)
	if err != nil {
		return "", err
	}
	programs := map[string][]byte{}
	for _, name := range []string{"agent", "initramfs"} {
		if programs[name], err = b.guestBinary(ctx, name); err != nil {
			return "", err
		}
	}
	own, err := guestFilesKey()
	if err != nil {
		return "", err
	}
	id := key(8, uboot.FwEnvConfig, r.Flavour, r.Packages, r.Version, r.Broken, r.Size, r.filesKey(), base, kernel.Dir,
		string(programs["agent"]), string(programs["initramfs"]), own, excluded, masked)
	name := fmt.Sprintf("rootfs-%s-%s", r.Flavour, fileName(r.Version))
	dir, err := b.cached(ctx, name, id, func(dir string) error {
		t, err := r.assemble(base, kernel, programs, id)
		if err != nil {
			return err
		}
		return writeImage(ctx, t, filepath.Join(dir, "root.ext4"), r.Size)
	})
	return filepath.Join(dir, "root.ext4"), err
}

func (b *Builder) baseRoot(ctx context.Context, r Root) (string, error) {
	switch r.Flavour {
	case Systemd:
		return b.systemdRoot(ctx, r.Packages)
	case Small:
		return b.smallRoot(ctx, r.Packages)
	}
	return "", fmt.Errorf("build root file system: flavour %q is unknown", r.Flavour)
}

// fileName makes a version fit to be part of a file's name.
func fileName(version string) string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, version)
}

func (r *Root) filesKey() string {
	var parts []any
	for _, f := range r.Files {
		parts = append(parts, f.Path, f.Mode, f.Link, string(f.Content))
	}
	return key(parts...)
}

func guestFilesKey() (string, error) {
	var parts []any
	err := fs.WalkDir(guestFiles, "files", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := guestFiles.ReadFile(p)
		parts = append(parts, p, string(data))
		return err
	})
	return key(parts...), err
}

// assemble makes the whole tree in memory.
func (r *Root) assemble(base string, k *Kernel, programs map[string][]byte, id string) (tree, error) {
	t, err := readTarFile(base)
	if err != nil {
		return nil, err
	}
	t.remove(excluded...)
	for _, dir := range []string{"boot", "data", "dev", "etc", "proc", "run", "sys", "tmp", "var", "root", "mnt"} {
		t.dir(dir, 0o755)
	}
	if err := r.addBoot(t, k, programs["initramfs"]); err != nil {
		return nil, err
	}
	if err := addGuestFiles(t, "files/"+string(r.Flavour)); err != nil {
		return nil, err
	}
	t.file("usr/lib/updaterd-test/agent", 0o755, programs["agent"])
	r.identify(t, id)
	if r.Flavour == Systemd {
		configureSystemd(t)
	} else {
		configureSmall(t)
	}
	t.file("etc/fw_env.config", 0o644, []byte(uboot.FwEnvConfig))
	for _, f := range r.Files {
		mode := f.Mode
		if mode == 0 {
			mode = 0o644
		}
		if f.Link != "" {
			t.symlink(f.Path, f.Link)
		} else {
			t.file(f.Path, mode, f.Content)
		}
	}
	return t, r.breakIt(t)
}

// addBoot adds the kernel, its modules and the initramfs. The kernel of the small
// flavour is compressed: it starts and installs faster. The other's is not, so
// that a delta finds what two kernels have in common.
func (r *Root) addBoot(t tree, k *Kernel, init []byte) error {
	name := "Image"
	if r.Flavour == Small {
		name = "Image.gz"
	}
	image, err := os.ReadFile(filepath.Join(k.Dir, name))
	if err != nil {
		return err
	}
	initrd, err := initramfs(init, k)
	if err != nil {
		return err
	}
	t.file("boot/Image", 0o644, image)
	t.file("boot/initrd", 0o644, initrd)
	modules, err := k.modules()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		t.set(name, modules[name])
	}
	return nil
}

// addGuestFiles adds a directory of the embedded files; scripts become executable.
func addGuestFiles(t tree, top string) error {
	return fs.WalkDir(guestFiles, top, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := guestFiles.ReadFile(p)
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if bytes.HasPrefix(data, []byte("#!")) {
			mode = 0o755
		}
		t.file(strings.TrimPrefix(p, top+"/"), mode, data)
		return nil
	})
}

// identify writes who this system is. Its build id differs whenever anything in it does.
func (r *Root) identify(t tree, id string) {
	var release []byte
	if n, ok := t["usr/lib/os-release"]; ok {
		release = n.data
	} else {
		release = []byte("PRETTY_NAME=\"Small test guest\"\nNAME=\"busybox\"\nID=updaterd-small\n")
		t.symlink("etc/os-release", "../usr/lib/os-release")
	}
	release = fmt.Appendf(slices.Clone(release), "IMAGE_ID=updaterd-%s\nIMAGE_VERSION=%q\nBUILD_ID=%s-%s\n", r.Flavour, r.Version, fileName(r.Version), id[:12])
	t.file("usr/lib/os-release", 0o644, release)
	t.file("etc/machine-id", 0o444, []byte("0123456789abcdef0123456789abcdef\n"))
	t.file("etc/hostname", 0o644, []byte("board\n"))
	t.file("etc/hosts", 0o644, []byte("127.0.0.1 localhost\n127.0.1.1 board\n"))
	t.file("etc/resolv.conf", 0o644, []byte("nameserver 10.0.2.3\n"))
	t.remove("var/lib/dbus/machine-id")
}

// breakIt does to the system what Broken says.
func (r *Root) breakIt(t tree) error {
	health := "#!/bin/sh\nexit 0\n"
	switch r.Broken {
	case Healthy:
	case BrokenHealth:
		health = "#!/bin/sh\necho '" + HealthMessage + "' >&2\nexit 1\n"
	case BrokenInit:
		delete(t, t.resolve("sbin/init"))
		t.file("sbin/init", 0o755, []byte("this is not a program\n"))
	case BrokenHang:
		if r.Flavour == Systemd {
			t.symlink("etc/systemd/system/multi-user.target.wants/updaterd-test-hang.service", "/usr/lib/systemd/system/updaterd-test-hang.service")
			break
		}
		inittab := t["etc/inittab"]
		inittab.data = append(inittab.data, "::once:/usr/lib/updaterd-test/agent hang\n"...)
	case BrokenMount:
		t.appendLine("etc/fstab", "/dev/disk/by-label/none /mnt ext4 ro,x-systemd.device-timeout=1 0 0")
	case BrokenStuck:
		t.symlink("etc/systemd/system/sysinit.target.wants/updaterd-test-stuck.service", "/usr/lib/systemd/system/updaterd-test-stuck.service")
	default:
		return fmt.Errorf("build root file system: kind of breakage %q is unknown", r.Broken)
	}
	t.file(HealthCommand, 0o755, []byte(health))
	return nil
}

// masked units only cost time on the board, or would write.
var masked = []string{"apt-daily.timer", "dpkg-db-backup.timer", "fstrim.timer", "getty-static.service", "getty@tty1.service", "ldconfig.service",
	"proc-sys-fs-binfmt_misc.automount", "systemd-binfmt.service", "systemd-firstboot.service", "systemd-hwdb-update.service", "systemd-journal-flush.service",
	"systemd-machine-id-commit.service", "systemd-pcrphase.service", "systemd-pcrphase-initrd.service", "systemd-pcrphase-sysinit.service",
	"systemd-pstore.service", "systemd-random-seed.service", "systemd-repart.service", "systemd-rfkill.socket", "systemd-sysusers.service",
	"systemd-update-done.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-networkd-wait-online.service", "kmod-static-nodes.service",
	"modprobe@drm.service", "modprobe@configfs.service", "modprobe@fuse.service", "modprobe@efi_pstore.service", "systemd-remount-fs.service", "systemd-sysctl.service",
	"dev-mqueue.mount", "cryptsetup.target", "integritysetup.target", "veritysetup.target", "systemd-initctl.socket", "systemd-journald-audit.socket",
	"systemd-ask-password-console.path", "systemd-ask-password-wall.path", "remote-fs.target",
	"sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "e2scrub_reap.service",
	"systemd-network-generator.service"}

func configureSystemd(t tree) {
	const system = "etc/systemd/system/"
	for _, unit := range masked {
		t.symlink(system+unit, "/dev/null")
	}
	for wanted, by := range map[string]string{"updaterd-test-agent.service": "sysinit.target", "board-network.service": "multi-user.target", "updaterd.service": "multi-user.target"} {
		t.symlink(system+by+".wants/"+wanted, "/usr/lib/systemd/system/"+wanted)
	}
	t.symlink(system+"default.target", "/usr/lib/systemd/system/multi-user.target")
	t.appendLine("etc/passwd", "app:x:1000:1000:An application:/:/bin/sh")
	t.appendLine("etc/group", "app:x:1000:")
}

func configureSmall(t tree) {
	for _, applet := range busyboxApplets {
		t.symlink("usr/bin/"+applet, "busybox")
	}
	for _, name := range []string{"init", "reboot", "poweroff", "modprobe", "insmod"} {
		t.symlink("usr/sbin/"+name, "../bin/busybox")
	}
	t.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nmessagebus:x:100:100::/:/bin/false\napp:x:1000:1000:An application:/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"))
	t.file("etc/group", 0o644, []byte("root:x:0:\nmessagebus:x:100:\napp:x:1000:\nnogroup:x:65534:\n"))
	t.file("etc/nsswitch.conf", 0o644, []byte("passwd: files\ngroup: files\nhosts: files dns\n"))
}

func (t tree) appendLine(name, line string) {
	var data []byte
	if n, ok := t[name]; ok {
		data = slices.Clone(n.data)
	}
	t.file(name, 0o644, append(data, line+"\n"...))
}

// busyboxApplets are the commands that the small guest has.
var busyboxApplets = strings.Fields(`ash awk basename cat chmod chown chroot cmp cp cut date dd df dirname dmesg du echo env expr false find
	free getopt grep head hexdump hostname id ifconfig ip kill killall ln ls lsmod md5sum mkdir mknod mktemp mount mv nc netstat nohup
	od pgrep pidof ping pkill printf ps pwd readlink realpath rm rmdir sed seq setsid sh sha256sum sleep sort stat strings su sync tail tar tee
	test timeout touch tr true truncate tty umount uname uniq uptime usleep vi wc wget which xargs yes zcat`)
