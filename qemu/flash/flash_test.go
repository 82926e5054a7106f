// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package flash_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/updaterd/updaterd/qemu/assets"
)

// wanted are the tests that must have run on the board.
var wanted = []string{"TestNOR", "TestNAND", "TestUBI"}

var result = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\w+)`)

func TestBoard(t *testing.T) {
	b, err := assets.New(assets.Options{Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	board, err := b.FlashBoard(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	initramfs, err := board.Initramfs(guest(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"initramfs": initramfs, "nor": make([]byte, 2<<20)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-arm", "-M", "sabrelite", "-smp", "2", "-m", "512", "-nodefaults", "-display", "none",
		"-serial", "null", "-serial", "stdio", "-nic", "none", "-no-reboot",
		"-kernel", board.Kernel(), "-dtb", board.DeviceTree(), "-initrd", filepath.Join(dir, "initramfs"),
		"-append", "console=ttymxc1 quiet panic=-1",
		"-drive", "if=mtd,format=raw,file="+filepath.Join(dir, "nor"))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	console, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; .ci/setup installs it", err)
	}
	ended := false
	passed := map[string]bool{}
	for lines := bufio.NewScanner(console); lines.Scan(); {
		line := strings.TrimRight(lines.Text(), "\r")
		t.Logf("%5.1f s  %s", time.Since(begin).Seconds(), line)
		if m := result.FindStringSubmatch(line); m != nil {
			passed[m[2]] = m[1] == "PASS"
		}
		if strings.HasPrefix(line, "guest: ended") {
			ended = true
			break // this board cannot switch itself off
		}
	}
	cancel()
	_ = cmd.Wait() // it was killed
	if !ended {
		t.Fatal("the board never came to the end of its tests")
	}
	for _, name := range wanted {
		if !passed[name] {
			t.Errorf("%s has not passed on the board", name)
		}
	}
}

// guest builds the tests of package guest for the board.
func guest(t *testing.T, dir string) []byte {
	t.Helper()
	path := filepath.Join(dir, "guest.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "qemu", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/updaterd/updaterd/qemu/flash/guest")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm", "GOARM=7", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the guest: %v\n%s", err, out)
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return binary
}
