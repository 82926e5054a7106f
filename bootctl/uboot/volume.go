// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// volume is what a volumePlace needs of an open UBI volume.
type volume interface {
	io.ReaderAt
	io.WriteCloser
	// Update begins the replacement of the whole content by the next n bytes that
	// are written.
	Update(n int64) error
	Sync() error
}

// volumePlace is a copy in a UBI volume of its own.
type volumePlace struct {
	l    Location
	open func(path string, flags int) (volume, error)
}

// ubiVolume is a volume of the operating system.
type ubiVolume struct{ *os.File }

func openVolume(path string, flags int) (volume, error) {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	return ubiVolume{f}, nil
}

func (v ubiVolume) Update(n int64) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, v.Fd(), unix.UBI_IOCVOLUP, uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		return os.NewSyscallError("ioctl UBI_IOCVOLUP", errno)
	}
	return nil
}

var (
	// namedVolume is a volume by its name, on a UBI device or on the MTD device
	// that one is attached to.
	namedVolume = regexp.MustCompile(`^(/dev/ubi|/dev/mtd)(\d+):(\S+)$`)
	volumeDir   = regexp.MustCompile(`^ubi\d+_\d+$`)
)

// volumeNode is the device node of a volume that is given by its name, as
// libubootenv allows it. Any other path it returns as it is.
func (sys system) volumeNode(path string) (string, error) {
	m := namedVolume.FindStringSubmatch(path)
	if m == nil {
		return path, nil
	}
	device, number, name := "ubi"+m[2], m[2], m[3]
	if m[1] == "/dev/mtd" {
		device = sys.attached(number)
		if device == "" {
			return "", fmt.Errorf("find UBI volume %s: UBI is not attached to /dev/mtd%s: attach it at start, with ubi.mtd=%s on the kernel's command line or ubiattach", path, number, number)
		}
	}
	for _, dir := range sys.ubi() {
		if strings.HasPrefix(dir, device+"_") && sys.ubiAttribute(dir, "name") == name {
			return "/dev/" + dir, nil
		}
	}
	return "", fmt.Errorf("find UBI volume %s: no volume of /dev/%s has that name (is UBI attached?)", path, device)
}

// attached is the UBI device that is attached to an MTD device, such as "ubi0".
func (sys system) attached(mtd string) string {
	for _, dir := range sys.ubi() {
		if sys.ubiAttribute(dir, "mtd_num") == mtd {
			return dir
		}
	}
	return ""
}

// ubi lists the UBI devices and volumes, such as "ubi0" and "ubi0_1".
func (sys system) ubi() []string {
	d, err := os.Open(filepath.Join(sys.sysfs, "class/ubi"))
	if err != nil {
		return nil // UBI is not there
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	return names
}

func (sys system) ubiAttribute(dir, name string) string {
	return readAttribute(filepath.Join(sys.sysfs, "class/ubi", dir, name))
}

// volumeName is what sysfs calls the UBI volume behind a character device, such
// as "ubi0_1", or "" if it is something else.
func (sys system) volumeName(info os.FileInfo) string {
	link, err := os.Readlink(filepath.Join(sys.sysfs, "dev/char", numbers(deviceNumber(info))))
	if name := filepath.Base(link); err == nil && volumeDir.MatchString(name) {
		return name
	}
	return ""
}

// findVolume checks a location in the volume that sysfs calls name.
func (sys system) findVolume(l Location, name string) (*volumePlace, error) {
	if l.Offset != 0 {
		return nil, fmt.Errorf("the copy in UBI volume %s has offset %#x, but a volume holds one copy, from its beginning: correct fw_env.config", l.Path, l.Offset)
	}
	blocks, err1 := strconv.ParseInt(sys.ubiAttribute(name, "reserved_ebs"), 10, 64)
	size, err2 := strconv.ParseInt(sys.ubiAttribute(name, "usable_eb_size"), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("find the size of UBI volume %s: %w", l.Path, err)
	}
	if l.Size > blocks*size {
		return nil, fmt.Errorf("a copy of %#x bytes does not fit UBI volume %s, which has %#x: correct fw_env.config, or enlarge the volume", l.Size, l.Path, blocks*size)
	}
	return &volumePlace{l: l, open: sys.volume}, nil
}

func (p *volumePlace) String() string { return p.l.Path }

// clash is asked only if both are one volume.
func (p *volumePlace) clash(place) (string, error) {
	return "", fmt.Errorf("both copies are in UBI volume %s, which holds one", p.l.Path)
}

// read reads zeros where the volume ends: an update with less was stored there.
func (p *volumePlace) read() ([]byte, error) {
	v, err := p.open(p.l.Path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	image := make([]byte, p.l.Size)
	_, err = v.ReadAt(image, 0)
	switch {
	case errors.Is(err, io.EOF):
		return image, nil
	case errors.Is(err, unix.EBADF):
		// UBI refuses to read a volume whose update was interrupted, until the next update.
		return nil, fmt.Errorf("%w: its last update was interrupted", ErrUnreadable)
	}
	return image, err
}

// write replaces the content of the volume. UBI marks the volume as being
// updated first and takes the mark away after the last byte, so from the first
// step to the last it cannot be read, here and in U-Boot: a cut anywhere leaves
// the copy in the other volume in force.
func (p *volumePlace) write(image []byte) (err error) {
	v, err := p.open(p.l.Path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer closing(v, &err)
	if err := v.Update(p.l.Size); err != nil {
		return err
	}
	if _, err := v.Write(image); err != nil {
		return err
	}
	return v.Sync()
}
