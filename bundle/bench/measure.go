// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A usage is what a program took.
type usage struct {
	Seconds float64 `json:"seconds"`
	// CPU is in seconds, of user and system together: what other programs of
	// the machine do changes it much less than Seconds.
	CPU float64 `json:"cpu"`
	// Peak is the most bytes that were resident at once.
	Peak int64 `json:"peak"`
}

// measure runs a program in dir and returns what it printed and took, together
// with the programs that it started.
func measure(ctx context.Context, dir string, argv ...string) ([]byte, usage, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, environment()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, usage{}, fmt.Errorf("run %s: %w; \".ci/setup bench\" installs it", argv[0], err)
	}
	sampled, stop := make(chan int64), make(chan struct{})
	go func() { sampled <- samplePeak(cmd.Process.Pid, stop) }()
	err := cmd.Wait()
	u := usage{Seconds: time.Since(begin).Seconds()}
	close(stop)
	u.Peak = <-sampled
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		said := bytes.TrimSpace(append(stderr.Bytes(), stdout.Bytes()...))
		return nil, u, fmt.Errorf("run %s: %w\n%s", strings.Join(argv, " "), err, said[max(0, len(said)-2000):])
	}
	r := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	u.CPU = seconds(r.Utime) + seconds(r.Stime)
	// What the kernel reports begins at the size of the process that forked, so it counts only above that.
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err == nil && r.Maxrss > self.Maxrss {
		u.Peak = max(u.Peak, r.Maxrss<<10)
	}
	return stdout.Bytes(), u, nil
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

// samplePeak reads the peak of one process, which only grows, until it is told to stop.
func samplePeak(pid int, stop <-chan struct{}) (peak int64) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return peak
		case <-tick.C:
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if err == nil {
				peak = max(peak, highWater(status))
			}
		}
	}
}

// highWater finds VmHWM, in bytes, in a process's status.
func highWater(status []byte) int64 {
	for line := range bytes.Lines(status) {
		if v, found := bytes.CutPrefix(line, []byte("VmHWM:")); found {
			n, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(v), []byte("kB")))), 10, 64)
			if err == nil {
				return n << 10
			}
		}
	}
	return 0
}

// A store keeps results, so that an interrupted run goes on where it was.
type store struct {
	dir string
	// run names this run; what other runs have measured is marked.
	run string
	// fresh is set if only results of this run count.
	fresh bool
}

// kept returns what is kept under a key, if there is anything.
func kept[T any](s store, key string) (value T, found bool, err error) {
	data, err := os.ReadFile(s.path(key))
	if s.fresh || errors.Is(err, fs.ErrNotExist) {
		return value, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &value)
	}
	if err != nil {
		return value, false, fmt.Errorf("read a kept result: %w; remove %s to measure it again", err, s.path(key))
	}
	return value, true, nil
}

func (s store) path(key string) string { return filepath.Join(s.dir, key+".json") }

// once returns what is kept under a key, or else what is measured.
func once[T any](s store, key string, measuring func() (T, error)) (T, error) {
	if value, found, err := kept[T](s, key); found || err != nil {
		return value, err
	}
	value, err := measuring()
	if err != nil {
		return value, err
	}
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return value, err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return value, err
	}
	path := s.path(key)
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return value, err
	}
	return value, os.Rename(path+".new", path)
}

// same tells whether two files have the same content.
func same(a, b string) (bool, error) {
	f, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer g.Close()
	x, y := bufio.NewReaderSize(f, 1<<16), bufio.NewReaderSize(g, 1<<16)
	p, q := make([]byte, 1<<16), make([]byte, 1<<16)
	for {
		n, err := io.ReadFull(x, p)
		m, err2 := io.ReadFull(y, q)
		if !bytes.Equal(p[:n], q[:m]) {
			return false, nil
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return err2 == io.EOF || err2 == io.ErrUnexpectedEOF, nil
		}
		if err != nil {
			return false, err
		}
		if err2 != nil {
			return false, err2
		}
	}
}

func fileSize(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
