// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// rounds of each install are measured in turn; the quickest counts, because
// what else the machine does only ever adds.
const rounds = 3

// throttledRate is that of a usual eMMC, in bytes a second.
const throttledRate = 40_000_000

// An install is how long one way takes to fill a slot.
type install struct {
	Label string `json:"label"`
	Size  int64  `json:"size"`
	// Fast is on the devices as they are, Slow on a target that takes 40 MB/s.
	Fast usage  `json:"fast"`
	Slow *usage `json:"slow,omitempty"`
}

var installHeader = []string{"what writes", "s", "MB/s", "dd = 1", "CPU s", "peak MB", "s at 40 MB/s", "dd = 1"}

func (i install) cells(t installTable) []string {
	dd := t.Rows[0]
	c := []string{i.Label, fmt.Sprintf("%.2f", i.Fast.Seconds), fmt.Sprintf("%.0f", float64(i.Size)/1e6/i.Fast.Seconds),
		fmt.Sprintf("%.2f", i.Fast.Seconds/dd.Fast.Seconds), fmt.Sprintf("%.2f", i.Fast.CPU), fmt.Sprintf("%.0f", float64(i.Fast.Peak)/1e6), "", ""}
	if i.Slow != nil && dd.Slow != nil {
		c[6], c[7] = fmt.Sprintf("%.2f", i.Slow.Seconds), fmt.Sprintf("%.2f", i.Slow.Seconds/dd.Slow.Seconds)
	}
	return c
}

// An installTable is what was measured together.
type installTable struct {
	Run  string    `json:"run,omitempty"`
	Pair string    `json:"pair,omitempty"` // its title
	Rows []install `json:"rows,omitempty"`
	// Notes tell what could not be measured, and why.
	Notes []string `json:"notes,omitempty"`
}

func (t installTable) title() string {
	return "Installing the new image of “" + t.Pair + "” from a local file on loop devices"
}

// A writer is one way to fill the target slot.
type writer struct {
	label string
	write func(context.Context) (usage, error)
}

// installs measures how the device's engine, RAUC and dd write the new image,
// on two loop devices. Whatever cannot run here becomes a note.
func installs(ctx context.Context, j job) (t installTable, err error) {
	not := func(why string) installTable {
		return installTable{Notes: []string{"Installing was not measured: " + why + "."}}
	}
	if os.Geteuid() != 0 {
		return not("loop devices need root"), nil
	}
	size, err := fileSize(j.new)
	if err != nil {
		return t, err
	}
	booted, err := loop(ctx, j.path("a"), size)
	if err != nil {
		return not(err.Error()), nil
	}
	defer booted.close()
	target, err := loop(ctx, j.path("b"), size)
	if err != nil {
		return not(err.Error()), nil
	}
	defer target.close()
	if err := command(ctx, "dd", "if="+j.old, "of="+booted.path, "bs=1M", "conv=fsync"); err != nil {
		return t, err
	}
	if _, err := variants[0].create(ctx, j); err != nil {
		return t, err
	}
	engine := func(label, buildID string) writer {
		return writer{label, func(ctx context.Context) (usage, error) {
			if err := os.RemoveAll(j.path("data")); err != nil {
				return usage{}, err
			}
			_, u, err := measure(ctx, j.dir, filepath.Join(j.bin, "installbench"), "--booted", booted.path, "--target", target.path,
				"--build-id", buildID, "--keyring", "keys", "--data", "data", bundleFile)
			return u, err
		}}
	}
	writers := []writer{
		{"dd, then fsync; nothing is checked", func(ctx context.Context) (usage, error) {
			_, u, err := measure(ctx, j.dir, "dd", "if="+j.new, "of="+target.path, "bs=1M", "conv=fsync")
			return u, err
		}},
		engine("updaterd, full recipe; reads back what it wrote", "none"),
		engine("updaterd, delta; reads back what it wrote", "old"),
	}
	service, err := startRAUC(ctx, j, booted.path, target.path)
	if err != nil {
		t.Notes = append(t.Notes, "RAUC's install was not measured: "+err.Error())
	} else {
		defer service.stop()
		writers = append(writers, writer{"RAUC, plain bundle", service.install})
	}
	slow := true
	if undo, err := throttle(target.path); err != nil {
		slow = false
		t.Notes = append(t.Notes, "A target of 40 MB/s was not measured: "+err.Error())
	} else {
		undo()
	}
	t.Rows = make([]install, len(writers))
	for round := range 2 * rounds {
		throttled := round%2 == 1
		if throttled && !slow {
			continue
		}
		for i, w := range writers {
			u, err := onto(ctx, target.path, j.new, throttled, w.write)
			if err != nil {
				return t, fmt.Errorf("%s: %w", w.label, err)
			}
			t.Rows[i].Label, t.Rows[i].Size = w.label, size
			switch {
			case !throttled && (round == 0 || u.Seconds < t.Rows[i].Fast.Seconds):
				t.Rows[i].Fast = u
			case throttled && (t.Rows[i].Slow == nil || u.Seconds < t.Rows[i].Slow.Seconds):
				t.Rows[i].Slow = &u
			}
		}
	}
	return t, nil
}

// onto fills the target with what is in no image, has it written, and checks what it holds.
func onto(ctx context.Context, target, image string, throttled bool, write func(context.Context) (usage, error)) (usage, error) {
	if err := fill(target); err != nil {
		return usage{}, err
	}
	if throttled {
		undo, err := throttle(target)
		if err != nil {
			return usage{}, err
		}
		defer undo()
	}
	u, err := write(ctx)
	if err != nil {
		return u, err
	}
	if equal, err := same(image, target); err != nil || !equal {
		return u, errors.Join(err, errors.New("the target does not hold the new image"))
	}
	return u, nil
}

// fill overwrites a device.
func fill(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	block := bytes.Repeat([]byte{0xff}, 1<<20)
	for {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			return f.Sync()
		} else if err != nil {
			return err
		}
	}
}

// A loopDevice is a block device in a file.
type loopDevice struct{ path string }

func loop(ctx context.Context, file string, size int64) (loopDevice, error) {
	f, err := os.Create(file)
	if err != nil {
		return loopDevice{}, err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return loopDevice{}, err
	}
	out, _, err := measure(ctx, filepath.Dir(file), "losetup", "--find", "--show", file)
	return loopDevice{strings.TrimSpace(string(out))}, err
}

func (l loopDevice) close() {
	// Not the run's context, which may have ended.
	_ = command(context.Background(), "losetup", "--detach", l.path)
}

// throttle limits what a device takes, whoever writes, through the root of
// cgroup v1's blkio; undo lifts it.
func throttle(device string) (undo func(), err error) {
	const control = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device"
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		return nil, err
	}
	set := func(rate int) error {
		rule := fmt.Sprintf("%d:%d %d", unix.Major(st.Rdev), unix.Minor(st.Rdev), rate)
		if err := os.WriteFile(control, []byte(rule), 0); err != nil {
			return fmt.Errorf("this machine has no blkio controller of cgroup v1 to limit a device with (%v)", err)
		}
		return nil
	}
	if err := set(throttledRate); err != nil {
		return nil, err
	}
	return func() { _ = set(0) }, nil
}

// A raucService is RAUC's service on a bus of its own.
type raucService struct {
	job          job
	bus, service *exec.Cmd
	address      string
}

// startRAUC makes a plain bundle, because verity needs the device mapper, and starts the service.
func startRAUC(ctx context.Context, j job, booted, target string) (*raucService, error) {
	manifest := strings.NewReplacer("format=verity", "format=plain", "adaptive=block-hash-index\n", "").Replace(raucManifest)
	if _, err := raucBundle(ctx, j, manifest); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`[system]
compatible=bench
bootloader=noop
statusfile=%s
mountprefix=%s
bundle-formats=plain verity
[keyring]
path=%s
[slot.rootfs.0]
device=%s
type=raw
bootname=A
[slot.rootfs.1]
device=%s
type=raw
bootname=B
`, j.path("status"), j.path("mount"), j.path("cert.pem"), booted, target)
	if err := os.WriteFile(j.path("system.conf"), []byte(config), 0o644); err != nil {
		return nil, err
	}
	if err := os.Mkdir(j.path("mount"), 0o755); err != nil {
		return nil, err
	}
	s := &raucService{job: j, bus: exec.Command("dbus-daemon", "--session", "--nofork", "--print-address=1")}
	out, err := s.bus.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.bus.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("start a bus: %w", err)
	}
	s.address = strings.TrimSpace(line)
	s.service = exec.Command("rauc", "service", "--conf="+j.path("system.conf"), "--override-boot-slot=A")
	s.service.Env = s.environment()
	var said bytes.Buffer
	s.service.Stdout, s.service.Stderr = &said, &said
	if err := s.service.Start(); err != nil {
		s.service = nil
		s.stop()
		return nil, err
	}
	for range 50 {
		time.Sleep(100 * time.Millisecond)
		status := exec.CommandContext(ctx, "rauc", "status")
		status.Env = s.environment()
		if status.Run() == nil {
			return s, nil
		}
	}
	s.stop()
	return nil, fmt.Errorf("the service does not answer: %s", bytes.TrimSpace(said.Bytes()))
}

func (s *raucService) environment() []string {
	return append(environment(), "DBUS_SYSTEM_BUS_ADDRESS="+s.address)
}

// install has the service install the bundle. Memory is the service's, which does the work.
func (s *raucService) install(ctx context.Context) (usage, error) {
	before, err := s.cpu()
	if err != nil {
		return usage{}, err
	}
	_, u, err := measure(ctx, s.job.dir, "env", "DBUS_SYSTEM_BUS_ADDRESS="+s.address, "rauc", "install", "out.raucb")
	if err != nil {
		return u, err
	}
	after, err := s.cpu()
	if err != nil {
		return u, err
	}
	u.CPU += after - before
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.service.Process.Pid))
	u.Peak = max(u.Peak, highWater(status))
	return u, err
}

// cpu is what the service has taken so far, in seconds.
func (s *raucService) cpu() (float64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.service.Process.Pid))
	if err != nil {
		return 0, err
	}
	return cpuSeconds(string(stat))
}

// cpuSeconds reads fields 14 and 15 of a process's stat, in clock ticks; Linux shows 100 a second.
func cpuSeconds(stat string) (float64, error) {
	// The program's name, in parentheses, may hold anything.
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	var user, system int64
	if len(f) < 13 {
		return 0, fmt.Errorf("a process's stat has %d fields", len(f))
	}
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		return 0, fmt.Errorf("read a process's stat: %w", err)
	}
	return float64(user+system) / 100, nil
}

func (s *raucService) stop() {
	for _, cmd := range []*exec.Cmd{s.service, s.bus} {
		if cmd != nil {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		}
	}
}
