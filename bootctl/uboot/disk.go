// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// osDisk is a disk of the operating system.
type osDisk struct{ f *os.File }

func openDisk(path string, flags int) (disk, error) {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	return osDisk{f}, nil
}

func (d osDisk) ReadAt(p []byte, offset int64) (int, error)  { return d.f.ReadAt(p, offset) }
func (d osDisk) WriteAt(p []byte, offset int64) (int, error) { return d.f.WriteAt(p, offset) }
func (d osDisk) Close() error                                { return d.f.Close() }
func (d osDisk) Info() (os.FileInfo, error)                  { return d.f.Stat() }

// Sync uses fdatasync: neither the size nor the name of the file changes. On a
// block device it also flushes the device's own write cache.
func (d osDisk) Sync() error {
	for {
		err := unix.Fdatasync(int(d.f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

func (d osDisk) Forget(offset, n int64) error {
	return os.NewSyscallError("fadvise", unix.Fadvise(int(d.f.Fd()), offset, n, unix.FADV_DONTNEED))
}

// Length seeks, because a block device has no size in its inode.
func (d osDisk) Length() (int64, error) { return d.f.Seek(0, io.SeekEnd) }

// DefaultLockFile is the lock file of U-Boot's and libubootenv's fw_printenv and fw_setenv.
const DefaultLockFile = "/var/lock/fw_printenv.lock"

// How long to wait for another process that holds the lock. fw_setenv holds it
// for one write; this only has to be longer than the slowest flash.
const (
	lockWait = 30 * time.Second
	lockPoll = 10 * time.Millisecond
	// lockWaitRead is how long who only reads waits, and then goes without:
	// whoever may open the lock file may hold the lock for ever.
	lockWaitRead = 2 * time.Second
)

// lockFile takes the lock as those tools do: flock on a file that stays there.
func lockFile(path string, write bool) (release func(), err error) {
	f, err := openLock(path, write)
	if err != nil {
		if !write && (errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EROFS)) {
			// A reader who cannot lock still sees a whole copy: the checksum
			// of one that is being written does not fit.
			return func() {}, nil
		}
		return nil, fmt.Errorf("lock boot environment: %w", err)
	}
	how, wait := unix.LOCK_SH, lockWaitRead
	if write {
		how, wait = unix.LOCK_EX, lockWait
	}
	for tries := wait / lockPoll; ; tries-- {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil // closing drops the lock
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			f.Close()
			return nil, fmt.Errorf("lock boot environment: %s: %w", path, err)
		case tries == 0 && !write:
			f.Close()
			return func() {}, nil
		case tries == 0:
			f.Close()
			return nil, fmt.Errorf("lock boot environment: %s has been held by another process for %v: find it with \"fuser %s\"", path, lockWait, path)
		default:
			time.Sleep(lockPoll)
		}
	}
}

// openLock opens the lock file, and creates it only if it is missing: in a
// directory that everybody may write to, the kernel may forbid even root to open
// with O_CREAT a file that somebody else has made (fs.protected_regular).
func openLock(path string, write bool) (*os.File, error) {
	mode := os.O_RDONLY
	if write {
		mode = os.O_WRONLY
	}
	f, err := os.OpenFile(path, mode, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(path, mode|os.O_CREATE, 0o666)
	}
	return f, err
}
