// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/updaterd/updaterd/bootctl/uboot"
)

// The kernel sees one write of one copy at one offset for a change of any number
// of variables, and then a sync, on a file and on a block device.
func TestOneWriteSeenByStrace(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatalf("%v: install the package strace", err)
	}
	for _, medium := range []string{"file", "block device"} {
		t.Run(medium, func(t *testing.T) {
			dir := t.TempDir()
			if err := factory(dir); err != nil {
				t.Fatal(err)
			}
			disk := filepath.Join(dir, "disk")
			if medium == "block device" {
				disk = loop(t, disk)
				config := uboot.Config{{Path: disk, Offset: 0x4000, Size: 0x1000}, {Path: disk, Offset: 0x8000, Size: 0x1000}}
				if err := os.WriteFile(filepath.Join(dir, "fw_env.config"), []byte(config.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, tc := range []struct {
				args string
				want []string
			}{
				{"set one=1 two=2 three=3", []string{"write 4096 at 32768", "sync"}},
				{"set one= two=3", []string{"write 4096 at 16384", "sync"}},
				{"set two=3", nil},
				{"set-primary --trial b", []string{"write 4096 at 32768", "sync"}},
				{"mark-good", []string{"write 4096 at 16384", "sync", "write 4096 at 32768", "sync"}},
			} {
				if diff := cmp.Diff(tc.want, traced(t, dir, disk, strings.Fields(tc.args)...)); diff != "" {
					t.Errorf("%s: %s", tc.args, diff)
				}
			}
		})
	}
}

// loop makes a block device of a file.
func loop(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("losetup", "--find", "--show", path).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device here: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if err := exec.Command("losetup", "--detach", device).Run(); err != nil {
			t.Error(err)
		}
	})
	return device
}

var (
	// A call that another thread interrupts is reported in two lines; its length
	// is checked by the read-back all the same.
	writeCall = regexp.MustCompile(`\bp?write(64|v|v2)?\(\d+<[^>]*>,.*, (\d+), (\d+)(?:\) += (\d+)| <unfinished \.\.\.>)$`)
	syncCall  = regexp.MustCompile(`\bf(data)?sync\(`)
)

// traced runs updater-bootctl and returns what it did to disk.
func traced(t *testing.T, dir, disk string, args ...string) []string {
	t.Helper()
	program := filepath.Join(dir, "updater-bootctl") // the name by which TestMain knows it
	if err := os.Symlink(must(os.Executable()), program); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "strace.log")
	argv := append([]string{"-f", "-y", "-o", log, "-e", "trace=write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,msync,mmap",
		program, "--config", filepath.Join(dir, "fw_env.config"), "--lock", filepath.Join(dir, "lock")}, args...)
	if out, err := exec.Command("strace", argv...).CombinedOutput(); err != nil {
		t.Fatalf("strace: %v\n%s", err, out)
	}
	var did []string
	for line := range strings.Lines(string(must(os.ReadFile(log)))) {
		line = strings.TrimSpace(line)
		if !strings.Contains(line, "<"+disk) {
			continue
		}
		switch m := writeCall.FindStringSubmatch(line); {
		case m != nil && (m[4] == "" || m[4] == m[2]):
			did = append(did, fmt.Sprintf("write %s at %s", m[2], m[3]))
		case syncCall.MatchString(line):
			did = append(did, "sync")
		default:
			did = append(did, line)
		}
	}
	return did
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
