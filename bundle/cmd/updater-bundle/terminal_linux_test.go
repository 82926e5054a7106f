// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal opens a terminal, of which the test is the person.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal here: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	raw, err := person.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var failed error
	if err := raw.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed == nil {
			n, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); err != nil || failed != nil {
		t.Skipf("no terminal here: %v, %v", err, failed)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal here: %v", err)
	}
	return person, program
}

// Ctrl-C while create or diff is at work, at a real terminal: it showed progress,
// stops soon, and leaves nothing behind.
func TestInterrupt(t *testing.T) {
	for _, tc := range []struct {
		args string
		// after is what the terminal shows when the key is pressed.
		after string
	}{
		{"create --compatible a --version 2 --image rootfs=new --delta-from rootfs=old --chunk-size 65536 --key k.key -o out.upb", "building "},
		{"create --compatible a --version 2 --image rootfs=new --delta-from rootfs=old.upb --chunk-size 65536 --key k.key -o out.upb", "no build id is found in old.upb"},
		{"diff --chunk-size 65536 old new", "comparing "},
	} {
		dir := t.TempDir()
		interruptible(t, dir)
		person, program := terminal(t)
		cmd := exec.Command("updater-bundle", strings.Fields(tc.args)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		before, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		program.Close()
		var shown bytes.Buffer
		var pressed time.Time
		buf := make([]byte, 4096)
		for {
			n, err := person.Read(buf)
			shown.Write(buf[:n])
			if err != nil { // the program has let go of the terminal
				break
			}
			if pressed.IsZero() && strings.Contains(shown.String(), tc.after) {
				pressed = time.Now()
				if _, err := person.WriteString("\x03"); err != nil {
					t.Fatal(err)
				}
			}
		}
		err = cmd.Wait()
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 || pressed.IsZero() || !strings.Contains(shown.String(), "interrupted, nothing was written") {
			t.Errorf("%s: %v\n%q", tc.args, err, shown.String())
		}
		if took := time.Since(pressed); took > 20*time.Second {
			t.Errorf("%s: it went on for %v", tc.args, took)
		}
		after, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(after) != len(before) {
			t.Errorf("%s: left behind: %v", tc.args, after)
		}
	}
}

// interruptible puts images in dir that take some seconds to build from.
func interruptible(t *testing.T, dir string) {
	t.Helper()
	put := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("old", prose(300<<10, 1))
	put("new", prose(4<<20, 2))
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	put("k.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	build := exec.Command("updater-bundle", strings.Fields("create --compatible a --version 1 --image rootfs=old --key k.key -o old.upb")...)
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
