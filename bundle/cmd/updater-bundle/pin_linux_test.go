// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Ctrl-C while the plugin for a token asks for the PIN: the program ends, and the
// terminal shows again what is typed.
func TestInterruptAtThePIN(t *testing.T) {
	dir := t.TempDir()
	plugin := "#!/bin/sh\nstty -echo </dev/tty\nprintf 'PIN: ' >/dev/tty\nexec sleep 60\n"
	if err := os.WriteFile(filepath.Join(dir, "sigstore-kms-asks"), []byte(plugin), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "image"), []byte("image"), 0o600); err != nil {
		t.Fatal(err)
	}
	person, program := terminal(t)
	cmd := exec.Command("updater-bundle", strings.Fields("create --compatible a --version 2 --image rootfs=image --key asks://key -o out.upb")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	echo := func() bool {
		state, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return state.Lflag&unix.ECHO != 0
	}
	var shown bytes.Buffer
	buf := make([]byte, 4096)
	for !strings.Contains(shown.String(), "PIN: ") {
		n, err := person.Read(buf)
		if err != nil {
			t.Fatalf("%v\n%q", err, shown.String())
		}
		shown.Write(buf[:n])
	}
	if echo() {
		t.Error("the plugin did not switch the echo off, so this test shows nothing")
	}
	pressed := time.Now()
	if _, err := person.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the program was not interrupted")
	}
	if took := time.Since(pressed); took > 20*time.Second {
		t.Errorf("it went on for %v", took)
	}
	if !echo() {
		t.Error("the echo is still off")
	}
	program.Close()
	if _, err := os.Stat(filepath.Join(dir, "out.upb")); err == nil {
		t.Error("a bundle was written")
	}
}
