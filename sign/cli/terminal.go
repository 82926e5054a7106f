// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// keepTerminal remembers how the terminal is set, and returns what sets it so
// again: the program that asks for the PIN of a token switches the echo off, and is
// ended with us by Ctrl-C before it could switch it on.
func keepTerminal() (restore func()) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return func() {}
	}
	fd := int(tty.Fd())
	state, err := term.GetState(fd)
	return func() {
		defer tty.Close()
		// In the background, the terminal is somebody else's.
		if front, e := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err == nil && e == nil && front == unix.Getpgrp() {
			_ = term.Restore(fd, state)
		}
	}
}
