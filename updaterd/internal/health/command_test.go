// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shell is a command with a time-out that no test waits for.
func shell(name, line string) Command {
	return Command{Name: name, Argv: []string{"/bin/sh", "-c", line}, Timeout: time.Minute}
}

func TestCommand(t *testing.T) {
	for _, tc := range []struct {
		name, line, want string
	}{
		{"passes", "echo fine", ""},
		{"says the last line", "echo first; echo second >&2; echo; exit 3", "command probe exited with status 3: second"},
		{"says nothing", "exit 1", "command probe exited with status 1"},
		{"dies by a signal", "echo oops; kill -SEGV $$", "command probe was ended by signal segmentation fault: oops"},
		{"writes binary", `printf 'a\033[31m\377b\n'; exit 1`, "status 1: a[31mb"},
		{"writes a lot", "head -c 100000 /dev/zero | tr '\\0' x; exit 1", "status 1: " + strings.Repeat("x", maxLine) + "…"},
		{"sees a clean environment", `test -z "$HEALTH_TEST_LEAK" && test "$(pwd)" = /`, ""},
		{"has its variables", `test "$HEALTH_TEST_OLD" = "1 2" && test -n "$PATH"`, ""},
		{"leaves a child with the output open", "sleep 60 & exit 0", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("HEALTH_TEST_LEAK", "1")
			checkVerdict(t, shell("probe", tc.line).Run(t.Context(), "HEALTH_TEST_OLD=1 2"), tc.want)
		})
	}
	checkVerdict(t, Command{Name: "probe", Argv: []string{"/no/such/file"}, Timeout: time.Minute}.Run(t.Context()),
		"command probe could not be run")
}

// TestTimeOutKillsTheGroup lets a grandchild outlive its parent, unless it is killed too.
func TestTimeOutKillsTheGroup(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	c := shell("probe", "sleep 1000 & echo $! > "+pidFile+"; echo waiting; wait")
	c.Timeout = 500 * time.Millisecond
	checkVerdict(t, c.Run(t.Context()), "command probe did not end within 500ms: waiting")
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	for gone := false; !gone; { // until its new parent has reaped it
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		gone = err != nil || strings.Contains(string(stat), ") Z ")
		if !gone && syscall.Kill(pid, 0) == nil {
			time.Sleep(time.Millisecond)
		}
	}
}

func TestCommandAndContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := shell("probe", "sleep 1000").Run(ctx)
	checkVerdict(t, err, "command probe was still running when the deadline came")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("run = %v; want DeadlineExceeded", err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := shell("probe", "sleep 1000").Run(stopped); !errors.Is(err, context.Canceled) {
		t.Errorf("run = %v; want context.Canceled", err)
	}
}
