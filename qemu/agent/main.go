// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/qemu/agent/agentproto"
)

const portName = "org.updaterd.agent"

func main() {
	fmt.Fprintln(os.Stderr, "agent:", run(os.Args[1:]))
	os.Exit(1)
}

// run works until something fails; there is no other end.
func run(args []string) error {
	switch {
	case len(args) == 0:
		return serve()
	case len(args) == 1 && args[0] == "hang":
		return hang()
	}
	return fmt.Errorf("arguments %q: none or \"hang\" are expected", args)
}

func serve() error {
	path, err := findPort("/sys/class/virtio-ports", time.Minute)
	if err != nil {
		return err
	}
	// Opened for blocking reads: what a port without a host reports is not what Go's poller expects.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	return agentproto.Serve(port(fd))
}

// findPort waits for the port: its module may still be loading.
func findPort(class string, wait time.Duration) (string, error) {
	for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		names, err := filepath.Glob(filepath.Join(class, "*", "name"))
		if err != nil {
			return "", err
		}
		for _, name := range names {
			if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == portName {
				return filepath.Join("/dev", filepath.Base(filepath.Dir(name))), nil
			}
		}
	}
	return "", fmt.Errorf("no virtio-serial port is called %s", portName)
}

// A port is the file descriptor of a virtio-serial port.
type port int

// Read waits for data; while no host is connected, the port reads as if it had ended.
func (p port) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(p), b)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
			time.Sleep(50 * time.Millisecond)
		case err != nil:
			return 0, err
		default:
			return n, nil
		}
	}
}

// Write writes all of b, waiting for the host if it does not read.
func (p port) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Write(int(p), b[done:])
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			time.Sleep(10 * time.Millisecond)
		case err != nil:
			return done, err
		case n == 0:
			return done, io.ErrShortWrite
		default:
			done += n
		}
	}
	return done, nil
}
