// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFindPort(t *testing.T) {
	class := t.TempDir()
	for dir, name := range map[string]string{"vport0p1": "other\n", "vport1p1": portName + "\n"} {
		if err := os.Mkdir(filepath.Join(class, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(class, dir, "name"), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := findPort(class, time.Minute); err != nil || got != "/dev/vport1p1" {
		t.Errorf("findPort = %q, %v; want /dev/vport1p1", got, err)
	}
	if got, err := findPort(t.TempDir(), time.Millisecond); err == nil {
		t.Errorf("findPort without ports = %q; want an error", got)
	}
}

func TestWatchdogOpen(t *testing.T) {
	proc := t.TempDir()
	fds := filepath.Join(proc, "12", "fd")
	if err := os.MkdirAll(fds, 0o755); err != nil {
		t.Fatal(err)
	}
	if watchdogOpen(proc) {
		t.Error("watchdogOpen = true without any file")
	}
	if err := os.Symlink("/dev/watchdog0", filepath.Join(fds, "7")); err != nil {
		t.Fatal(err)
	}
	if !watchdogOpen(proc) {
		t.Error("watchdogOpen = false; want true")
	}
}

func TestArguments(t *testing.T) {
	if err := run([]string{"hang", "now"}); err == nil {
		t.Error("run with unknown arguments = nil; want an error")
	}
}
