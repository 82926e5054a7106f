// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/qemu/origin"
	"github.com/updaterd/updaterd/qemu/vm"
	"github.com/updaterd/updaterd/updaterd/client"
)

// What the scenarios share: the product, built and with a key, and the cache.
type workshop struct {
	*assets.Builder
	*device.Product
	bundles string
	// building is held while a bundle is built: scenarios share them.
	building sync.Mutex
}

var open = sync.OnceValues(func() (*workshop, error) {
	ctx := context.Background()
	b, err := assets.New(assets.Options{Log: os.Stderr})
	if err != nil {
		return nil, err
	}
	if err := b.Prepare(ctx); err != nil {
		return nil, err
	}
	cache, err := assets.DefaultCache()
	if err != nil {
		return nil, err
	}
	p, err := device.NewProduct(ctx, filepath.Join(cache, "product"))
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "bundles")
	return &workshop{Builder: b, Product: p, bundles: dir}, os.MkdirAll(dir, 0o755)
})

func workshopFor(t *testing.T) *workshop {
	t.Helper()
	w, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *workshop) image(t *testing.T, s device.System) string {
	t.Helper()
	path, err := w.Image(t.Context(), w.Builder, s)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// bundle builds a bundle under a name that tells what is in it, so that the
// next run finds it, and returns the name.
func (w *workshop) bundle(t *testing.T, r device.Release) string {
	t.Helper()
	name := r.Version
	for _, path := range append([]string{r.Image}, r.From...) {
		base := filepath.Base(filepath.Dir(path))
		name += "-" + base[max(0, len(base)-8):]
	}
	if r.Loader != "" {
		b, err := os.ReadFile(r.Loader)
		if err != nil {
			t.Fatal(err)
		}
		name += fmt.Sprintf("-%x", crc32.ChecksumIEEE(b))
	}
	name += ".upb"
	w.building.Lock()
	defer w.building.Unlock()
	took, err := w.Bundle(t.Context(), r, filepath.Join(w.bundles, name))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(w.bundles, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("bundle %s: %d bytes, built in %.1f s", r.Version, info.Size(), took.Seconds())
	return name
}

// newDevice makes a device whose image and console are kept if the test fails.
func (w *workshop) newDevice(t *testing.T, d assets.Disk) *device.Device {
	t.Helper()
	dir, err := os.MkdirTemp("", "updaterd-scenario-")
	if err != nil {
		t.Fatal(err)
	}
	var console io.Writer
	if os.Getenv("UPDATERD_CONSOLE") != "" {
		console = os.Stderr
	}
	dev, err := device.New(t.Context(), w.Builder, d, dir, console)
	if err != nil {
		os.RemoveAll(dir)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && dev.VM != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			log, _ := dev.Run(ctx, "sh", "-c", "journalctl -b -u updaterd --no-pager 2>/dev/null || cat /run/updaterd.log")
			cancel()
			t.Logf("the daemon's log:\n%s", log)
		}
		dev.Close()
		if t.Failed() {
			t.Logf("kept: disk image and console log in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return dev
}

func (w *workshop) serve(t *testing.T, dir string) *origin.Server {
	t.Helper()
	s, err := origin.Start(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func url(s *origin.Server, name string) string { return s.URL(vm.Host, name) }

// within bounds one step of a scenario.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, fmt.Errorf("it took longer than %v", d))
	t.Cleanup(cancel)
	return ctx
}

// boot switches the device on and waits until it is up.
func boot(t *testing.T, d *device.Device) {
	t.Helper()
	ctx := within(t, 2*time.Minute)
	if err := d.PowerOn(ctx); err != nil {
		t.Fatal(err)
	}
	if err := d.Up(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %.1f s", time.Since(d.VM.Started).Seconds())
}

// run runs a command in the guest that must succeed.
func run(t *testing.T, d *device.Device, argv ...string) string {
	t.Helper()
	out, err := d.Run(within(t, 10*time.Minute), argv...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

func reboot(t *testing.T, d *device.Device) {
	t.Helper()
	if err := d.Reboot(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
}

// installAndReboot installs, then reboots, in two steps: the answer to a command
// that reboots by itself may not come before the device goes down.
func installAndReboot(t *testing.T, d *device.Device, ref string) {
	t.Helper()
	run(t, d, "updaterctl", "install", ref)
	reboot(t, d)
}

// Exit codes of updaterctl (docs/errors.md).
const (
	exitFailed        = 1
	exitNotAuthorized = 4
	exitRefused       = 5
)

// refused runs a command in the guest that must fail, with the given exit code
// unless that is 0, and returns what it said.
func refused(t *testing.T, d *device.Device, exit int, argv ...string) string {
	t.Helper()
	out, err := d.Run(within(t, 5*time.Minute), argv...)
	var failed *device.CommandError
	if !errors.As(err, &failed) {
		t.Fatalf("%s: want a refusal, got %v and %s", strings.Join(argv, " "), err, out)
	}
	if exit != 0 && failed.Exit != exit {
		t.Errorf("%s: exit status %d, want %d", strings.Join(argv, " "), failed.Exit, exit)
	}
	return failed.Stderr + failed.Stdout
}

func status(t *testing.T, d *device.Device) *client.Status {
	t.Helper()
	s, err := d.Status(within(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// settled waits until the state is idle and the device is not on trial.
func settled(t *testing.T, d *device.Device, limit time.Duration) *client.Status {
	t.Helper()
	s, err := d.Decided(within(t, limit))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// expectEnv compares variables of the boot environment on the card.
func expectEnv(t *testing.T, d *device.Device, want map[string]string) {
	t.Helper()
	run(t, d, "sync")
	env, copies, err := d.Env()
	if err != nil {
		t.Fatal(err)
	}
	if copies != 2 {
		t.Errorf("%d copies of the environment are intact, want 2", copies)
	}
	for name, value := range want {
		if env[name] != value {
			t.Errorf("environment: %s=%q, want %q", name, env[name], value)
		}
	}
}

// expectSlot compares what runs, what would run next, and how the last job ended.
func expectSlot(t *testing.T, s *client.Status, slot, version string, outcome client.Outcome, reason string) {
	t.Helper()
	if s.BootedSlot != slot || s.PrimarySlot != slot || s.Version != version {
		t.Errorf("runs %s from slot %s, primary %s; want %s from %s", s.Version, s.BootedSlot, s.PrimarySlot, version, slot)
	}
	switch {
	case s.LastResult == nil:
		t.Errorf("no last result; want %s", outcome)
	case s.LastResult.Outcome != outcome || !strings.Contains(s.LastResult.Message, reason):
		t.Errorf("last result: %s, %q; want %s with %q", s.LastResult.Outcome, s.LastResult.Message, outcome, reason)
	default:
		t.Logf("last result: %s: %s", s.LastResult.Outcome, s.LastResult.Message)
	}
	if len(s.Problems) > 0 {
		t.Errorf("problems: %v", s.Problems)
	}
}
