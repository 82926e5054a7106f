// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func newDisk(t *testing.T) (*Disk, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDisk(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, path
}

func mustWrite(t *testing.T, d *Disk, off int64, value byte, n int) {
	t.Helper()
	if on, err := d.write(bytes.Repeat([]byte{value}, n), off, false); !on || err != nil {
		t.Fatalf("write at %d: powered %v, %v", off, on, err)
	}
}

func at(t *testing.T, path string, off int) byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b[off]
}

func TestWritesAreVolatileUntilFlushed(t *testing.T) {
	d, path := newDisk(t)
	mustWrite(t, d, 4096, 1, 4096)
	var b [8192]byte
	if _, err := d.ReadAt(b[:], 100); err != nil || b[4096-101] != 0 || b[4096-100] != 1 || b[8192-101] != 1 {
		t.Fatalf("the device does not read its own write: %v", err)
	}
	if at(t, path, 4096) != 0 {
		t.Fatal("a write reached the medium before the flush")
	}
	if on, err := d.flush(); !on || err != nil {
		t.Fatal(on, err)
	}
	if at(t, path, 4096) != 1 {
		t.Fatal("a flushed write is not on the medium")
	}
	mustWrite(t, d, 4096, 2, 512)
	d.CutNow()
	d.PowerOn()
	if _, err := d.ReadAt(b[:1], 4096); err != nil || b[0] != 1 {
		t.Fatalf("after the cut the device reads %d, %v; want the flushed 1", b[0], err)
	}
}

func TestForcedWritesAreDurableAlone(t *testing.T) {
	d, path := newDisk(t)
	mustWrite(t, d, 0, 1, 512)
	if on, err := d.write(bytes.Repeat([]byte{2}, 1024), 4096, true); !on || err != nil {
		t.Fatal(on, err)
	}
	if at(t, path, 4096+512) != 2 || at(t, path, 0) != 0 {
		t.Fatal("a forced write must reach the medium, and nothing with it")
	}
}

func TestCutAtWriteTearsThatWriteAndStopsTheDisk(t *testing.T) {
	d, path := newDisk(t)
	d.CutAtWrite(2, 1, func(w Write) bool { return w.Offset >= 8192 })
	mustWrite(t, d, 0, 1, 512)
	mustWrite(t, d, 8192, 1, 512)
	if on, _ := d.write(bytes.Repeat([]byte{7}, 1024), 16384, false); on {
		t.Fatal("the second matching write was answered")
	}
	select {
	case <-d.Cut():
	default:
		t.Fatal("Cut is not closed")
	}
	if on, _ := d.flush(); on {
		t.Fatal("a disk without power flushed")
	}
	if at(t, path, 16384) != 7 || at(t, path, 16384+512) != 0 || at(t, path, 0) != 0 {
		t.Fatal("the torn write is not one sector, or what was not flushed survived")
	}
}

// TestQEMUSpeaksToIt drives the server with QEMU's own client.
func TestQEMUSpeaksToIt(t *testing.T) {
	d, path := newDisk(t)
	socket := filepath.Join(t.TempDir(), "s")
	s, err := Serve(d, socket)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "qemu-io", "-f", "raw", "-t", "writethrough",
		"-c", "write -P 0x5a 65536 4096", "-c", "read -P 0x5a 65536 4096", "-c", "read -P 0 0 4096",
		"nbd+unix:///?socket="+socket).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("failed")) {
		t.Fatalf("qemu-io: %v\n%s", err, out)
	}
	if at(t, path, 65536) != 0x5a {
		t.Fatalf("QEMU's write through did not reach the medium; log %v", d.Log())
	}
	d.CutNow()
	ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := exec.CommandContext(ctx, "qemu-io", "-f", "raw", "-c", "write 0 512", "nbd+unix:///?socket="+socket).Run(); err == nil {
		t.Fatal("a disk without power answered")
	}
}
