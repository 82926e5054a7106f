// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Serve answers requests, each as soon as it is done, until the stream ends.
func Serve(conn io.ReadWriter) error {
	r := bufio.NewReaderSize(conn, 64<<10)
	var sending sync.Mutex
	for {
		var req request
		if err := readFrame(r, &req); err != nil {
			return err
		}
		go func() {
			resp := serve(req)
			resp.ID = req.ID
			sending.Lock()
			defer sending.Unlock()
			// If the stream has ended, the next read says so.
			_ = writeFrame(conn, resp)
		}()
	}
}

func serve(req request) response {
	var resp response
	var err error
	switch req.Cmd {
	case "ping":
	case "exec":
		resp.Result, err = run(req)
	case "put":
		err = put(req)
	case "get":
		resp.Data, resp.Last, err = get(req)
	default:
		err = fmt.Errorf("command %q is unknown to this agent", req.Cmd)
	}
	if err != nil {
		return response{Error: err.Error()}
	}
	return resp
}

func run(req request) (Result, error) {
	if len(req.Argv) == 0 {
		return Result{}, errors.New("no program is named")
	}
	timeout := req.Timeout
	if timeout <= 0 {
		timeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, req.Argv[0], req.Argv[1:]...)
	var stdout, stderr output
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(req.Stdin), &stdout, &stderr
	cmd.Env = append(os.Environ(), req.Env...)
	// A time-out ends the children, too; and a child that keeps the output open does not keep us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return Result{}, err
	}
	result := Result{Stdout: stdout.text, Stderr: stderr.text, Cut: stdout.cut || stderr.cut,
		Exit: cmd.ProcessState.ExitCode(), TimedOut: ctx.Err() != nil}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		result.Exit = 128 + int(status.Signal())
	}
	return result, nil
}

// output keeps the first maxBlock bytes of what a command prints.
type output struct {
	text []byte
	cut  bool
}

func (o *output) Write(b []byte) (int, error) {
	keep := min(len(b), maxBlock-len(o.text))
	o.text = append(o.text, b[:keep]...)
	o.cut = o.cut || keep < len(b)
	return len(b), nil
}

func put(req request) error {
	if req.Offset == 0 {
		if err := os.MkdirAll(filepath.Dir(req.Path), 0o755); err != nil {
			return err
		}
	}
	flags := os.O_WRONLY | os.O_CREATE
	if req.Offset == 0 {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(req.Path, flags, os.FileMode(req.Mode))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(req.Data, req.Offset); err != nil {
		return err
	}
	if !req.Last {
		return nil
	}
	if err := f.Chmod(os.FileMode(req.Mode)); err != nil {
		return err
	}
	return f.Sync()
}

func get(req request) (data []byte, last bool, err error) {
	f, err := os.Open(req.Path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	if _, err := f.Seek(req.Offset, io.SeekStart); err != nil && req.Offset > 0 {
		return nil, false, err
	}
	data, err = io.ReadAll(io.LimitReader(f, maxBlock))
	return data, len(data) < maxBlock, err
}
