// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// groupLimit is what an integrator gives the daemon (systemd's MemoryMax): it
// counts the page cache that the daemon causes, too.
const groupLimit = 48 << 20

// A memoryGroup is a control group with that limit, of version 1 or 2.
type memoryGroup struct{ dir, peak string }

func newMemoryGroup(t *testing.T) (*memoryGroup, error) {
	var errs []error
	for _, kind := range []struct{ root, limit, peak string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"},
		{"/sys/fs/cgroup", "memory.max", "memory.peak"},
	} {
		dir := filepath.Join(kind.root, fmt.Sprintf("install-test-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			errs = append(errs, err)
			continue
		}
		// Its processes have ended by then.
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		err := os.WriteFile(filepath.Join(dir, kind.limit), []byte(fmt.Sprint(groupLimit)), 0)
		if err == nil {
			return &memoryGroup{dir, filepath.Join(dir, kind.peak)}, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// admit has a command begin in the group.
func (g *memoryGroup) admit(cmd *exec.Cmd) {
	cmd.Args = append([]string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(g.dir, "cgroup.procs"), cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
}

// used is the most that was charged to the group.
func (g *memoryGroup) used() (n int64) {
	b, _ := os.ReadFile(g.peak)
	fmt.Sscan(strings.TrimSpace(string(b)), &n)
	return n
}
