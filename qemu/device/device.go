// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/qemu/agent/agentproto"
	"github.com/updaterd/updaterd/qemu/assets"
	disk "github.com/updaterd/updaterd/qemu/nbd"
	board "github.com/updaterd/updaterd/qemu/uboot"
	"github.com/updaterd/updaterd/qemu/vm"
	"github.com/updaterd/updaterd/updaterd/client"
)

// A Device is one board with its SD card, over any number of starts.
type Device struct {
	Disk *disk.Disk
	// Path of the SD card's image.
	Path string
	// RTC is the clock at the next start; the host's time if "".
	RTC string
	// EMMC is the image of an eMMC at the next start; "" for none.
	EMMC string
	// Watched leads what is read and written through Disk at the next start, so that
	// its CutAtWrite and Spoil take effect. The board is slower then.
	Watched bool
	// Terminal makes this process's terminal that of the device at the next start.
	Terminal bool

	VM *vm.VM

	uboot   string
	dir     string
	console io.Writer

	mu    sync.Mutex
	agent *agentproto.Client
}

// New makes a device with the SD card described by d, switched off. What it
// keeps is below dir. Its console is copied to the writer, if there is one.
func New(ctx context.Context, b *assets.Builder, d assets.Disk, dir string, console io.Writer) (*Device, error) {
	uboot, err := b.UBoot(ctx)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "device.img")
	if err := b.Disk(ctx, d, path); err != nil {
		return nil, err
	}
	return Open(uboot, path, dir, console)
}

// Open takes the SD card image at path, as an earlier device left it.
func Open(uboot, path, dir string, console io.Writer) (*Device, error) {
	card, err := disk.OpenDisk(path)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, "console.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		card.Close()
		return nil, err
	}
	out := io.Writer(log)
	if console != nil {
		out = io.MultiWriter(log, console)
	}
	return &Device{Disk: card, Path: path, uboot: uboot, dir: dir, console: out}, nil
}

// PowerOn switches the device on and returns at once.
func (d *Device) PowerOn(ctx context.Context) error {
	if d.VM != nil {
		return errors.New("the device is on")
	}
	// Unix sockets need short paths, and test directories are long.
	sockets, err := os.MkdirTemp("", "updaterd")
	if err != nil {
		return err
	}
	config := vm.Config{UBoot: d.uboot, Card: d.Path, Dir: sockets, RTC: d.RTC, EMMC: d.EMMC, Console: d.console, Terminal: d.Terminal}
	if d.Watched {
		config.Disk = d.Disk
	}
	d.VM, err = vm.Start(ctx, config)
	if err != nil {
		os.RemoveAll(sockets)
		return err
	}
	conn, err := d.dialAgent(ctx)
	if err != nil {
		d.VM.Close()
		d.VM = nil
		return fmt.Errorf("connect to the guest's agent: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.agent = agentproto.NewClient(conn)
	return nil
}

// Agent is the connection to the guest's agent; it is nil while the device is off.
func (d *Device) Agent() *agentproto.Client {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.agent
}

// redial makes a new connection to the guest's agent: now and then QEMU no
// longer listens to the old one after the guest was reset.
func (d *Device) redial(ctx context.Context) error {
	d.Agent().Close()
	conn, err := d.dialAgent(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.agent = agentproto.NewClient(conn)
	return nil
}

// Ready waits until the guest's agent answers.
func (d *Device) Ready(ctx context.Context) error {
	for {
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := d.Agent().Ready(try)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if err := d.redial(ctx); err != nil {
			return err
		}
	}
}

// dialAgent connects to QEMU's end of the agent's port, which may be a moment
// later to listen than its monitor.
func (d *Device) dialAgent(ctx context.Context) (net.Conn, error) {
	for {
		conn, err := net.Dial("unix", d.VM.AgentSocket())
		if err == nil {
			return conn, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-d.VM.Exited():
			return nil, fmt.Errorf("QEMU has ended: %w", err)
		case <-ctx.Done():
			return nil, err
		}
	}
}

// PowerOff pulls the plug. What was not flushed to the card is lost.
func (d *Device) PowerOff() {
	if d.VM == nil {
		return
	}
	d.Disk.CutNow()
	d.VM.Kill()
	d.Agent().Close()
	dir := filepath.Dir(filepath.Dir(d.VM.AgentSocket()))
	d.VM.Close()
	os.RemoveAll(dir)
	d.VM = nil
	d.Disk.PowerOn()
}

// Close switches the device off and closes its card; the image stays.
func (d *Device) Close() {
	d.PowerOff()
	d.Disk.Close()
}

// Resets is how often the board has been reset since it was switched on.
func (d *Device) Resets() int {
	n := 0
	for _, e := range d.VM.Events() {
		if e == "RESET" {
			n++
		}
	}
	return n
}

// Up waits until the guest's agent answers and updaterd is on the bus.
func (d *Device) Up(ctx context.Context) error {
	if err := d.Ready(ctx); err != nil {
		return fmt.Errorf("%w; the console's last words:\n%s", err, tail(d.VM.Console.Text(), 3000))
	}
	for {
		_, err := d.Status(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("updaterd never answered: %w; the console's last words:\n%s", err, tail(d.VM.Console.Text(), 3000))
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// AwaitReset waits for the n-th reset since the device was switched on, then
// until it is up again.
func (d *Device) AwaitReset(ctx context.Context, n int) error {
	if err := d.VM.ExpectEvent(ctx, "RESET", n); err != nil {
		return fmt.Errorf("%w; the console's last words:\n%s", err, tail(d.VM.Console.Text(), 3000))
	}
	return d.Up(ctx)
}

// Run runs a command in the guest as root and returns what it prints. A
// command that fails is an error with what it said.
func (d *Device) Run(ctx context.Context, argv ...string) (string, error) {
	r, err := d.Agent().Exec(ctx, agentproto.Command{Argv: argv, Timeout: 10 * time.Minute})
	if err != nil {
		return "", err
	}
	if r.Exit != 0 {
		return string(r.Stdout), &CommandError{Argv: argv, Exit: r.Exit, Stderr: strings.TrimSpace(string(r.Stderr)), Stdout: string(r.Stdout)}
	}
	return string(r.Stdout), nil
}

// A CommandError is a command of the guest that failed.
type CommandError struct {
	Argv           []string
	Exit           int
	Stdout, Stderr string
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("%s in the guest: exit status %d: %s", strings.Join(e.Argv, " "), e.Exit, e.Stderr)
}

// Status is "updaterctl status --json". What is asked while the guest restarts
// gets lost, so it is not waited for long.
func (d *Device) Status(ctx context.Context) (*client.Status, error) {
	parent := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, 15*time.Second, errors.New("no answer for 15 seconds"))
	defer cancel()
	out, err := d.Run(ctx, "updaterctl", "status", "--json")
	if ctx.Err() != nil {
		return nil, errors.Join(err, d.redial(parent))
	}
	if err != nil {
		return nil, err
	}
	var s client.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return nil, fmt.Errorf("read status: %w: %s", err, out)
	}
	return &s, nil
}

// Decided waits until no update is in hand and no trial goes on.
func (d *Device) Decided(ctx context.Context) (*client.Status, error) {
	for {
		s, err := d.Status(ctx)
		if err == nil && s.State == client.Idle && !s.Trial {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the update was never decided: %w; the last answer was %+v, %v", context.Cause(ctx), s, err)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// Inspect is "updaterctl inspect --json".
func (d *Device) Inspect(ctx context.Context, ref string, flags ...string) (*client.Release, error) {
	out, err := d.Run(ctx, append(append([]string{"updaterctl", "inspect", "--json"}, flags...), ref)...)
	if err != nil {
		return nil, err
	}
	var r client.Release
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return nil, fmt.Errorf("read release: %w: %s", err, out)
	}
	return &r, nil
}

// Reboot asks for a reboot. The answer may be lost when the guest goes down.
func (d *Device) Reboot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_, err := d.Run(ctx, "updaterctl", "reboot")
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// Env reads the boot environment off the card, and how many of its copies are intact.
func (d *Device) Env() (vars map[string]string, copies int, err error) {
	var both [2]uboot.Copy
	for i, at := range []int64{board.EnvOffset, board.EnvOffset2} {
		image := make([]byte, board.EnvSize)
		if _, err := d.Disk.ReadAt(image, at); err != nil {
			return nil, 0, err
		}
		if both[i] = uboot.DecodeCopy(image, true); both[i].Valid {
			copies++
		}
	}
	at := uboot.Counter.Select(both[0], both[1])
	if at < 0 {
		return nil, 0, errors.New("no copy of the environment is intact")
	}
	env, err := uboot.Parse(both[at].Data)
	if err != nil {
		return nil, copies, err
	}
	return env.Vars(), copies, nil
}

func tail(text string, n int) string { return text[max(0, len(text)-n):] }
