// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestLocalFile(t *testing.T) {
	data := pattern(5000)
	path := filepath.Join(t.TempDir(), "f.upb")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r := open(t, quick, path)
	mustRead(t, r, data, 0, 16)
	mustRead(t, r, data, 4000, 1000)
	if r.Size() != 5000 || r.Fetched() != 1016 {
		t.Errorf("Size() = %d, Fetched() = %d; want 5000, 1016", r.Size(), r.Fetched())
	}
	var e *Error
	if _, err := read(r, 4000, 1001); !errors.As(err, &e) || !e.Truncated() {
		t.Errorf("Range past the end = %v, want a truncated error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Range(ctx, 0, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("Range with a cancelled context = %v", err)
	}
	if err := os.WriteFile(path, data[:4000], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(r, 0, 16); !errors.As(err, &e) || !e.Changed() {
		t.Errorf("Range of a replaced file = %v, want a changed error", err)
	}
	mustRead(t, r, data, 0, 16)
}

// A path may lead to something else a moment after it was looked at.
func TestFileThatBecomesAFIFO(t *testing.T) {
	dir := t.TempDir()
	file, fifo, path := filepath.Join(dir, "file"), filepath.Join(dir, "fifo"), filepath.Join(dir, "f.upb")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	stop, swapped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(swapped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			next := filepath.Join(dir, "next")
			_ = os.Symlink([]string{file, fifo}[i%2], next)
			_ = os.Rename(next, path)
		}
	}()
	opened := make(chan struct{})
	go func() {
		n := 0
		for end := time.Now().Add(300 * time.Millisecond); n == 0 || time.Now().Before(end); {
			if _, err := c.Open(path); err == nil {
				n++
			}
		}
		close(opened)
	}()
	select {
	case <-opened:
	case <-time.After(10 * time.Second):
		t.Error("Open waits for somebody to write to the FIFO")
		if f, err := os.OpenFile(fifo, os.O_RDWR, 0); err == nil {
			defer f.Close()
		}
		<-opened
	}
	close(stop)
	<-swapped
}
