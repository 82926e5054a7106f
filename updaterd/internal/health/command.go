// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
)

const (
	// killDelay is how long a killed command may hold on to its output.
	killDelay = 2 * time.Second
	// maxTail bounds what is kept of a command's output.
	maxTail = 1 << 10
	maxLine = 200 // runes of the line that goes into the reason
)

// commandEnv is the whole environment of a command: a verdict must not depend
// on how the daemon was started.
var commandEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}

// Run runs the command once, with variables beside its usual environment. It fails
// with *Unhealthy unless ctx was cancelled.
func (c Command) Run(ctx context.Context, variables ...string) error {
	timed, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var out tail
	cmd := exec.CommandContext(timed, c.Argv[0], c.Argv[1:]...)
	cmd.Env, cmd.Dir = slices.Concat(commandEnv, variables), "/"
	cmd.Stdout, cmd.Stderr = &out, &out
	// A group of its own, so that a time-out ends the command's children too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killDelay

	err := cmd.Run()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && timed.Err() == nil: // the latter: status 0, but a child keeps the output open
		return nil
	case ctx.Err() != nil:
		return ended(ctx, c.says("command %s was still running%s", c.Name, out.last()))
	case timed.Err() != nil:
		return c.says("command %s did not end within %v%s", c.Name, c.Timeout, out.last())
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return c.says("command %s could not be run: %v", c.Name, err)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return c.says("command %s was ended by signal %v%s", c.Name, status.Signal(), out.last())
	}
	return c.says("command %s exited with status %d%s", c.Name, exit.ExitCode(), out.last())
}

func (c Command) says(format string, args ...any) *Unhealthy {
	return &Unhealthy{Check: "command " + c.Name, Reason: fmt.Sprintf(format, args...)}
}

// tail keeps the end of what is written to it. exec.Cmd writes from one
// goroutine, since both outputs are the same writer.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p[max(0, len(p)-maxTail):]...)
	t.b = t.b[max(0, len(t.b)-maxTail):]
	return len(p), nil
}

// last is ": " and the last line that says something, or "".
func (t *tail) last() string {
	text := bytes.TrimSpace(t.b)
	text = text[bytes.LastIndexByte(text, '\n')+1:]
	line := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(text), ""))
	if runes := []rune(line); len(runes) > maxLine {
		line = string(runes[:maxLine]) + "…"
	}
	if line == "" {
		return ""
	}
	return ": " + line
}
