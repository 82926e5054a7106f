// SPDX-License-Identifier: Apache-2.0

package uboot_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
)

// fixChecksum makes the checksum of a copy without redundancy fit.
func fixChecksum(image []byte) {
	binary.NativeEndian.PutUint32(image, crc32.ChecksumIEEE(image[4:]))
}

// disk is a file with two formatted copies, and its configuration.
func disk(t *testing.T) uboot.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 0x10000), 0o600); err != nil {
		t.Fatal(err)
	}
	config := uboot.Config{{Path: path, Offset: 0x1000, Size: 0x2000}, {Path: path, Offset: 0x8000, Size: 0x2000}}
	format(t, config)
	return config
}

func format(t *testing.T, config uboot.Config) {
	t.Helper()
	store, err := uboot.OpenStore(config, filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	board := ubootmodel.Board{Store: store, Default: ubootmodel.Factory("a")}
	if err := board.Format(); err != nil {
		t.Fatal(err)
	}
}

// recorder is a disk that notes what is done to it.
type recorder struct {
	uboot.Disk
	log   *[]string
	flags int
	deny  func(what string) error
}

func record(log *[]string, deny func(string) error) func(string, int) (uboot.Disk, error) {
	return func(path string, flags int) (uboot.Disk, error) {
		if flags&unix.O_DIRECT != 0 && deny != nil {
			if err := deny("direct"); err != nil {
				return nil, err
			}
		}
		d, err := uboot.OpenDisk(path, flags&^unix.O_DIRECT)
		return recorder{Disk: d, log: log, flags: flags, deny: deny}, err
	}
}

func (r recorder) note(format string, args ...any) error {
	*r.log = append(*r.log, fmt.Sprintf(format, args...))
	if r.deny != nil {
		return r.deny((*r.log)[len(*r.log)-1])
	}
	return nil
}

func (r recorder) WriteAt(p []byte, offset int64) (int, error) {
	if err := r.note("write %#x bytes at %#x", len(p), offset); err != nil {
		return 0, err
	}
	return r.Disk.WriteAt(p, offset)
}

func (r recorder) ReadAt(p []byte, offset int64) (int, error) {
	how := "cached"
	if r.flags&unix.O_DIRECT != 0 {
		how = "direct"
	}
	if err := r.note("read %#x %s", offset, how); err != nil {
		return 0, err
	}
	return r.Disk.ReadAt(p, offset)
}

func (r recorder) Sync() error {
	if err := r.note("sync"); err != nil {
		return err
	}
	return r.Disk.Sync()
}

func (r recorder) Forget(offset, n int64) error {
	if err := r.note("forget %#x", offset); err != nil {
		return err
	}
	return r.Disk.Forget(offset, n)
}

// One change is one write of the whole copy that is not in force, at one offset,
// then a sync, then a read from the medium. Both copies are two such steps.
func TestOneWriteAtOneOffset(t *testing.T) {
	config := disk(t)
	var log []string
	store, err := uboot.OpenStoreOn(config, filepath.Join(t.TempDir(), "lock"), record(&log, nil))
	if err != nil {
		t.Fatal(err)
	}
	c := uboot.New(store)
	look := []string{"read 0x1000 direct", "read 0x8000 direct"}
	second := []string{"write 0x2000 bytes at 0x8000", "sync", "forget 0x8000", "read 0x8000 direct"}
	first := []string{"write 0x2000 bytes at 0x1000", "sync", "forget 0x1000", "read 0x1000 direct"}
	for _, tc := range []struct {
		name   string
		change bootctl.Change
		want   [][]string
	}{
		{"five variables", bootctl.Change{Primary: "b", Trial: bootctl.TrialBegin, Bad: []bootctl.Slot{"a"}, EnvID: "x"}, [][]string{look, second}},
		{"the next", bootctl.Change{EnvID: "y"}, [][]string{look, first}},
		{"nothing", bootctl.Change{EnvID: "y"}, [][]string{look}},
		{"both copies", bootctl.Change{Trial: bootctl.TrialEnd, BothCopies: true}, [][]string{look, second, look, first}},
		{"both copies again", bootctl.Change{Trial: bootctl.TrialEnd, BothCopies: true}, [][]string{look}},
	} {
		log = nil
		if err := c.Apply(tc.change); err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, part := range tc.want {
			want = append(want, part...)
		}
		if diff := cmp.Diff(want, log); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}

func TestDiskErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		on   string
		err  error
		want string // part of Apply's error; "" = it works
	}{
		{name: "no O_DIRECT here", on: "direct", err: syscall.EINVAL},
		{name: "no O_DIRECT for this alignment", on: "read 0x8000 direct", err: syscall.EINVAL},
		{name: "one copy unreadable", on: "read 0x1000 direct", err: syscall.EIO, want: "medium error"},
		{name: "no right to read", on: "direct", err: os.ErrPermission, want: "permission denied"},
		{name: "write fails", on: "write 0x2000 bytes at 0x8000", err: syscall.EIO, want: "write "},
		{name: "sync fails", on: "sync", err: syscall.EIO, want: "write "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			config := disk(t)
			var log []string
			store, err := uboot.OpenStoreOn(config, filepath.Join(t.TempDir(), "lock"), record(&log, func(what string) error {
				if what == tc.on {
					return tc.err
				}
				return nil
			}))
			if err != nil {
				t.Fatal(err)
			}
			err = uboot.New(store).Apply(bootctl.Change{Primary: "b"})
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || errors.Is(err, bootctl.ErrDamaged)):
				t.Errorf("Apply = %v; want %q", err, tc.want)
			}
		})
	}
}

func TestOpenStoreRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, make([]byte, 0x1000), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("f", link); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, config, want string }{
		{"missing", dir + "/none 0 100", "no such file"},
		{"directory", dir + " 0 100", "neither a device nor a regular file"},
		{"character device", "/dev/null 0 100", "character device"},
		{"past the end", file + " 0xf01 100", "lies outside"},
		{"far past the end", file + " 0x7fffffffffffff01 100", "lies outside"},
		{"negative on a file", file + " -0x100 100", "for block devices"},
		{"overlap", file + " 0 400\n" + link + " 0x200 400", "overlap"},
		{"overlap, the other way round", file + " 0x200 400\n" + link + " 0 400", "overlap"},
		{"the same place", file + " 0 400\n" + file + " 0 400", "overlap"},
		{"one sector", file + " 0 300\n" + file + " 0x300 300", "share a sector"},
	} {
		config, _, err := uboot.ParseConfig([]byte(tc.config))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := uboot.OpenStore(config, filepath.Join(dir, "lock")); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: OpenStore = %v; want %q", tc.name, err, tc.want)
		}
	}
}

// blockDevice makes a regular file pass for a block device.
type blockDevice struct{ uboot.Disk }

type blockInfo struct{ os.FileInfo }

func (blockInfo) Mode() os.FileMode { return os.ModeDevice | 0o660 }

func (d blockDevice) Info() (os.FileInfo, error) {
	info, err := d.Disk.Info()
	return blockInfo{info}, err
}

func TestNegativeOffset(t *testing.T) {
	config := disk(t) // 0x10000 bytes
	config[1].Offset = -0x8000
	open := func(path string, flags int) (uboot.Disk, error) {
		d, err := uboot.OpenDisk(path, flags)
		return blockDevice{d}, err
	}
	store, err := uboot.OpenStoreOn(config, filepath.Join(t.TempDir(), "lock"), open)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := uboot.New(store).Status(); err != nil || st.Copies != 2 {
		t.Errorf("Status = %+v, %v; want both copies", st, err)
	}
	if want := config[1].Path + " at 0x8000"; store.Where(1) != want {
		t.Errorf("Where = %s; want %s", store.Where(1), want)
	}
	config[1].Offset = -0x10001
	if _, err := uboot.OpenStoreOn(config, "lock", open); err == nil || !strings.Contains(err.Error(), "lies outside") {
		t.Errorf("OpenStore = %v; want an error about the offset", err)
	}
}

func TestReadsWithoutALockFile(t *testing.T) {
	store, err := uboot.OpenStore(disk(t), filepath.Join(t.TempDir(), "missing", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	c := uboot.New(store)
	if _, err := c.Status(); err != nil {
		t.Errorf("Status = %v; reading needs no lock file", err)
	}
	if err := c.Apply(bootctl.Change{Primary: "b"}); err == nil || !strings.Contains(err.Error(), "lock boot environment") {
		t.Errorf("Apply = %v; want an error about the lock file", err)
	}
}

// Whoever may open the lock file may hold the lock for ever.
func TestReadsPastAHeldLock(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "lock")
	f, err := os.Create(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	store, err := uboot.OpenStore(disk(t), lock)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := uboot.New(store).Status(); err != nil {
		t.Errorf("Status = %v; reading goes on without the lock", err)
	}
}
