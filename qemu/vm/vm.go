// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/updaterd/updaterd/qemu/nbd"
)

// Host is the address at which the guest finds servers of the host's loopback.
const Host = "10.0.2.2"

// AgentPort is the name of the virtio-serial port that the guest agent opens.
const AgentPort = "org.updaterd.agent"

// Config describes one start of the board.
type Config struct {
	// UBoot is the path of u-boot.bin.
	UBoot string
	// Card is the image of the SD card, which QEMU reads and writes itself.
	Card string
	// Disk, unless nil, is the card instead. It outlives the VM. Each sector is a question
	// and an answer then, which makes a write of a slot several times slower.
	Disk *nbd.Disk
	// Dir is a directory for sockets; its path must be short enough for unix sockets.
	Dir string
	// Memory in MiB; 512 if 0.
	Memory int
	// RTC is QEMU's -rtc base, for instance "1970-01-01T00:00:00"; the host's time if "".
	RTC string
	// Console gets a copy of what the serial line prints.
	Console io.Writer
	// EMMC, unless "", is the image of an eMMC beside the card: two boot partitions of
	// EMMCBoot bytes, of which it starts the first, and the user area. Not every
	// QEMU has one: see NoEMMC. What selects a boot partition is lost with a reset.
	EMMC string
	// Terminal connects the serial line's input, and QEMU's monitor (Ctrl-a c),
	// to this process's standard input. Ctrl-a x ends the VM.
	Terminal bool
}

// EMMCBoot is the size of each boot partition of an eMMC.
const EMMCBoot = 1 << 20

// NoEMMC tells why the QEMU on this machine cannot give a board an eMMC, or "".
func NoEMMC(ctx context.Context) string {
	cmd := exec.CommandContext(ctx, "qemu-system-aarch64", "-M", "virt", "-S", "-nodefaults", "-display", "none",
		"-monitor", "stdio", "-device", "sdhci-pci", "-device", "emmc")
	cmd.Stdin = strings.NewReader("quit\n")
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Sprintf("%v: %s", err, strings.TrimSpace(said.String()))
	}
	return ""
}

// A VM is a running board.
type VM struct {
	Console *Console
	Started time.Time
	agent   string
	command *exec.Cmd
	server  *nbd.Server
	monitor *monitor
	exited  chan struct{}
	stderr  strings.Builder
}

// Start switches the board on.
func Start(ctx context.Context, c Config) (*VM, error) {
	dir, err := os.MkdirTemp(c.Dir, "vm")
	if err != nil {
		return nil, fmt.Errorf("start board: %w", err)
	}
	socket := func(name string) string { return filepath.Join(dir, name) }
	v := &VM{Console: newConsole(c.Console), Started: time.Now(), agent: socket("agent"), exited: make(chan struct{})}
	// What the card has answered is in the host's cache, so that it survives the end
	// of QEMU, as it survives the end of the power: a card has no volatile cache.
	card := "file.driver=file,file.filename=" + strings.ReplaceAll(c.Card, ",", ",,") + ",cache=unsafe"
	if c.Disk != nil {
		if v.server, err = nbd.Serve(c.Disk, socket("sd")); err != nil {
			return nil, fmt.Errorf("start board: %w", err)
		}
		card = "file.driver=nbd,file.server.type=unix,file.server.path=" + socket("sd") + ",cache=writethrough"
	}
	if c.Memory == 0 {
		c.Memory = 512
	}
	serial := "stdio"
	if c.Terminal {
		serial = "mon:stdio"
	}
	args := []string{
		"-M", "virt", "-cpu", "cortex-a53", "-smp", "2", "-m", fmt.Sprint(c.Memory),
		"-nodefaults", "-display", "none", "-serial", serial, "-bios", c.UBoot,
		"-qmp", "unix:" + socket("qmp") + ",server=on,wait=off",
		"-drive", "if=none,id=sd,driver=raw," + card,
		"-device", "sdhci-pci", "-device", "sd-card,drive=sd",
		"-device", "i6300esb", "-action", "watchdog=reset",
		"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,path=" + v.agent + ",server=on,wait=off",
		"-device", "virtserialport,chardev=agent,name=" + AgentPort,
	}
	if c.EMMC != "" {
		args = append(args, "-drive", "if=none,id=emmc,format=raw,file="+c.EMMC, "-device", "sdhci-pci",
			"-device", fmt.Sprintf("emmc,drive=emmc,boot-partition-size=%d,boot-config=8", EMMCBoot))
	}
	if c.RTC != "" {
		args = append(args, "-rtc", "base="+c.RTC+",clock=vm")
	}
	v.command = exec.Command("qemu-system-aarch64", args...)
	v.command.Stdout, v.command.Stderr = v.Console, &v.stderr
	// A test that is killed must not leave the board running.
	v.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: !c.Terminal}
	if c.Terminal {
		v.command.Stdin = os.Stdin
	}
	if err := v.command.Start(); err != nil {
		if v.server != nil {
			v.server.Close()
		}
		return nil, fmt.Errorf("start board: %w", err)
	}
	go func() {
		_ = v.command.Wait() // how it ended is seen by whoever waits: Wait, Expect
		v.Console.close()
		close(v.exited)
	}()
	if v.monitor, err = v.connectMonitor(ctx, socket("qmp")); err != nil {
		v.Close()
		return nil, fmt.Errorf("start board: %w\n%s\n%s", err, v.command.String(), v.stderr.String())
	}
	return v, nil
}

// connectMonitor waits until QEMU has made its socket.
func (v *VM) connectMonitor(ctx context.Context, path string) (*monitor, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("QEMU never opened its monitor"))
	defer cancel()
	for {
		m, err := openMonitor(path)
		if err == nil {
			return m, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-v.exited:
			return nil, errors.New("QEMU ended at once")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// AgentSocket is the unix socket behind which the guest's agent answers.
func (v *VM) AgentSocket() string { return v.agent }

// Events are the names of QEMU's events so far, such as RESET, WATCHDOG and SHUTDOWN.
func (v *VM) Events() []string {
	events, _ := v.monitor.seen()
	return events
}

// ExpectEvent waits until the event called name has been seen at least n times.
func (v *VM) ExpectEvent(ctx context.Context, name string, n int) error {
	for {
		events, changed := v.monitor.seen()
		count := 0
		for _, e := range events {
			if e == name {
				count++
			}
		}
		if count >= n {
			return nil
		}
		select {
		case <-changed:
		case <-v.exited:
			return fmt.Errorf("QEMU ended after events %v, without %d of %s", slices.Compact(events), n, name)
		case <-ctx.Done():
			return fmt.Errorf("%w: waiting for %d of event %s, seen %v", context.Cause(ctx), n, name, events)
		}
	}
}

// Exited is closed when QEMU has ended.
func (v *VM) Exited() <-chan struct{} { return v.exited }

// Kill pulls the plug and waits until QEMU is gone. What the disk had not
// flushed stays lost only if the disk's power is cut too: see nbd.Disk.CutNow.
func (v *VM) Kill() {
	_ = v.command.Process.Kill() // it may have ended by itself
	<-v.exited
}

// Close ends everything that Start started.
func (v *VM) Close() {
	v.Kill()
	if v.monitor != nil {
		v.monitor.close()
	}
	if v.server != nil {
		v.server.Close()
	}
	os.RemoveAll(filepath.Dir(v.agent))
}
