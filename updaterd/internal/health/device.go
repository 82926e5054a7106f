// SPDX-License-Identifier: Apache-2.0

package health

import (
	"errors"
	"fmt"
	"time"

	"github.com/u-root/u-root/pkg/watchdog"
	"golang.org/x/sys/unix"
)

// device is an open hardware watchdog.
type device interface {
	KeepAlive() error
	MagicClose() error
	Close() error
	// setTimeout asks for a time-out and returns the one that now holds.
	setTimeout(time.Duration) (time.Duration, error)
}

type hardware struct{ *watchdog.Watchdog }

func openDevice(path string) (device, error) {
	w, err := watchdog.Open(path)
	if err != nil {
		return nil, err
	}
	return hardware{w}, nil
}

// setTimeout does the ioctl itself: the library's SetTimeout hands nanoseconds
// to a call that wants seconds. A driver may round, and one with a fixed
// time-out refuses the call; then its own time-out holds.
func (h hardware) setTimeout(want time.Duration) (time.Duration, error) {
	fd := int(h.File.Fd())
	err := unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, int(want/time.Second))
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOTTY) {
		return 0, fmt.Errorf("set time-out of %v: %w; the driver may have a lower limit", want, err)
	}
	seconds, err := unix.IoctlGetUint32(fd, unix.WDIOC_GETTIMEOUT)
	if err != nil {
		return 0, fmt.Errorf("read time-out: %w", err)
	}
	if seconds == 0 {
		return 0, fmt.Errorf("the driver says its time-out is 0")
	}
	return time.Duration(seconds) * time.Second, nil
}
