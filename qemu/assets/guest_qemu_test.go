// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package assets_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/qemu/agent/agentproto"
	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
)

// boot starts a board with what d says on its card. Its console is in the test's log if it fails.
func boot(t *testing.T, b *assets.Builder, d assets.Disk) *device.Device {
	t.Helper()
	dev, err := device.New(t.Context(), b, d, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && dev.VM != nil {
			t.Logf("console:\n%s", dev.VM.Console.Text())
		}
		dev.Close()
	})
	return dev
}

func builder(t *testing.T) *assets.Builder {
	t.Helper()
	b, err := assets.New(assets.Options{Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func rootFS(t *testing.T, b *assets.Builder, r assets.Root) string {
	t.Helper()
	image, err := b.RootFS(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// out runs a command in the guest that must succeed.
func out(t *testing.T, dev *device.Device, argv ...string) string {
	t.Helper()
	r, err := dev.Agent().Exec(t.Context(), agentproto.Command{Argv: argv})
	if err != nil {
		t.Fatal(err)
	}
	if r.Exit != 0 {
		t.Fatalf("%q = exit %d: %s%s", argv, r.Exit, r.Stdout, r.Stderr)
	}
	return string(r.Stdout)
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestGuests(t *testing.T) {
	b := builder(t)
	for _, flavour := range []assets.Flavour{assets.Small, assets.Systemd} {
		t.Run(string(flavour), func(t *testing.T) {
			image := rootFS(t, b, assets.Root{Flavour: flavour, Version: "1.0"})
			begin := time.Now()
			dev := boot(t, b, assets.Disk{Flavour: flavour, SlotA: image, EnvID: "factory"})
			if err := dev.Ready(within(t, 4*time.Minute)); err != nil {
				t.Fatal(err)
			}
			agent := time.Since(begin)
			listNames := []string{"dbus-send", "--system", "--print-reply", "--dest=org.freedesktop.DBus", "/", "org.freedesktop.DBus.ListNames"}
			waitFor(t, dev, listNames)
			t.Logf("%s: the agent answers after %.1f s, D-Bus after %.1f s", flavour, agent.Seconds(), time.Since(begin).Seconds())
			if flavour == assets.Systemd { // D-Bus is there before the data partition and the network are
				waitFor(t, dev, []string{"sh", "-c", `case $(systemctl is-system-running --wait) in running|degraded) ;; *) exit 1 ;; esac`})
			}
			checkGuest(t, dev)
			if flavour == assets.Systemd {
				if failed := out(t, dev, "systemctl", "--failed", "--plain", "--no-legend"); failed != "" {
					t.Errorf("units have failed:\n%s", failed)
				}
				out(t, dev, "pkaction", "--action-id", "org.freedesktop.systemd1.manage-units")
			}
			out(t, dev, "sh", "-c", "(sleep 0.2; exec poweroff) >/dev/null 2>&1 &")
			select {
			case <-dev.VM.Exited():
				t.Logf("%s: off after %.1f s", flavour, time.Since(begin).Seconds())
			case <-within(t, time.Minute).Done():
				t.Error("the guest never switched itself off")
			}
		})
	}
}

// waitFor repeats a command until it succeeds.
func waitFor(t *testing.T, dev *device.Device, argv []string) {
	t.Helper()
	ctx := within(t, 4*time.Minute)
	for {
		r, err := dev.Agent().Exec(ctx, agentproto.Command{Argv: argv})
		if err != nil {
			t.Fatal(err)
		}
		if r.Exit == 0 {
			return
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%q never succeeded: %s%s", argv, r.Stdout, r.Stderr)
		}
	}
}

// checkGuest checks what both flavours promise.
func checkGuest(t *testing.T, dev *device.Device) {
	t.Helper()
	mounts := out(t, dev, "cat", "/proc/mounts")
	for _, want := range []string{"/dev/mmcblk0p1 / ext4 ro", "/dev/mmcblk0p3 /data ext4 rw", "tmpfs /var tmpfs rw", "tmpfs /run tmpfs rw", "tmpfs /tmp tmpfs rw"} {
		if dev, rest, _ := strings.Cut(want, " "); !strings.Contains(mounts, want) && !strings.Contains(mounts, strings.Replace("/dev/root "+rest, dev, "", 1)) {
			t.Errorf("mounts lack %q:\n%s", want, mounts)
		}
	}
	if cmdline := out(t, dev, "cat", "/proc/cmdline"); !strings.Contains(cmdline, "updaterd.slot=a") || !strings.Contains(cmdline, "updaterd.env_id=factory") || !strings.Contains(cmdline, "panic=5") {
		t.Errorf("kernel command line = %q", cmdline)
	}
	if env := out(t, dev, "fw_printenv", "-n", "boot_slot"); env != "a\n" {
		t.Errorf("boot_slot = %q, as libubootenv reads it", env)
	}
	if route := out(t, dev, "ip", "route"); !strings.Contains(route, "default via 10.0.2.2") {
		t.Errorf("routes:\n%s", route)
	}
	if release := out(t, dev, "cat", "/etc/os-release"); !strings.Contains(release, "BUILD_ID=1.0-") || !strings.Contains(release, `IMAGE_VERSION="1.0"`) {
		t.Errorf("os-release:\n%s", release)
	}
	out(t, dev, "test", "-c", "/dev/watchdog")
	out(t, dev, assets.HealthCommand)

	content := strings.Repeat("0123456789abcdef", 1<<17) // more than one block
	if err := dev.Agent().Put(t.Context(), "/data/dir/file", 0o640, []byte(content)); err != nil {
		t.Fatal(err)
	}
	back, err := dev.Agent().Get(t.Context(), "/data/dir/file", 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	if string(back) != content {
		t.Errorf("file came back with %d bytes, want %d, or changed", len(back), len(content))
	}
	if r, err := dev.Agent().Exec(t.Context(), agentproto.Command{Argv: []string{"sleep", "60"}, Timeout: 300 * time.Millisecond}); err != nil || !r.TimedOut {
		t.Errorf("sleep 60 with a time-out = %+v, %v; want it timed out", r, err)
	}
}

// TestFallBack boots a trial whose init is broken: three counted starts, then the other slot.
func TestFallBack(t *testing.T) {
	t.Parallel() // it mostly waits
	b := builder(t)
	good := rootFS(t, b, assets.Root{Flavour: assets.Small, Version: "1.0"})
	broken := rootFS(t, b, assets.Root{Flavour: assets.Small, Version: "2.0", Broken: assets.BrokenInit})
	dev := boot(t, b, assets.Disk{Flavour: assets.Small, SlotA: good, SlotB: broken, EnvID: "factory",
		Env: map[string]string{"boot_slot": "b", "upgrade_available": "1", "boot_args": "console=ttyAMA0 panic=1"}})
	ctx := within(t, 6*time.Minute)
	for n := 1; n <= 3; n++ {
		expect(ctx, t, dev, fmt.Sprintf("starting slot b, bootcount %d of 3, trial 1", n))
		expect(ctx, t, dev, "Attempted to kill init")
	}
	expect(ctx, t, dev, "slot b failed, falling back to slot a")
	expect(ctx, t, dev, "starting slot a, bootcount 0 of 3, trial 0")
	if err := dev.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"boot_slot": "a", "boot_bad": "b", "upgrade_available": "0", "bootcount": "0", "env_id": "factory"} {
		if got := strings.TrimSpace(out(t, dev, "fw_printenv", "-n", name)); got != want {
			t.Errorf("%s = %q after the fall-back, want %q", name, got, want)
		}
	}
	if env := "\n" + out(t, dev, "fw_printenv"); strings.Contains(env, "\nupdaterd_") {
		t.Errorf("variables of the shell were saved:\n%s", env)
	}
}

// TestEmptySlots boots what cannot be booted: an empty primary slot falls to the
// other one, a bad slot is not started, and with nothing left the board resets. A
// kernel is started without an initramfs if the board has none.
func TestEmptySlots(t *testing.T) {
	b := builder(t)
	good := rootFS(t, b, assets.Root{Flavour: assets.Small, Version: "1.0"})
	ctx := within(t, 5*time.Minute)

	dev := boot(t, b, assets.Disk{Flavour: assets.Small, SlotB: good, NoEnv: true})
	expect(ctx, t, dev, "using default environment")
	expect(ctx, t, dev, "slot a cannot be loaded")
	expect(ctx, t, dev, "starting slot b")
	dev.Close()

	dev = boot(t, b, assets.Disk{Flavour: assets.Small, SlotA: good, Env: map[string]string{"boot_bad": "b a"}})
	expect(ctx, t, dev, "slot a is marked bad, not started")
	expect(ctx, t, dev, "slot b is marked bad, not started")
	expect(ctx, t, dev, "no slot can be started, reset in 5 seconds")
	expect(ctx, t, dev, "slot a is marked bad, not started")
	dev.Close()

	// A board may have no initramfs. This one's kernel has the driver of the card in it, and waits.
	dev = boot(t, b, assets.Disk{Flavour: assets.Small, SlotA: good, Env: map[string]string{"boot_initrd": ""}})
	expect(ctx, t, dev, "starting slot a")
	expect(ctx, t, dev, "Waiting for root device /dev/mmcblk0p1")
}

func expect(ctx context.Context, t *testing.T, dev *device.Device, text string) {
	t.Helper()
	if _, err := dev.VM.Console.Expect(ctx, text); err != nil {
		t.Fatal(err)
	}
}

// TestHang proves that the hanging variant hangs: the agent, too, falls silent, and nobody feeds the watchdog.
func TestHang(t *testing.T) {
	t.Parallel() // it mostly waits
	b := builder(t)
	// A stand-in for the daemon that opens the watchdog and feeds it for good.
	feeder := assets.File{Path: "/usr/bin/updaterd", Mode: 0o755, Content: []byte("#!/bin/sh\nexec 3>/dev/watchdog\nwhile echo . >&3; do sleep 1; done\n")}
	image := rootFS(t, b, assets.Root{Flavour: assets.Small, Version: "2.0", Broken: assets.BrokenHang, Files: []assets.File{feeder}})
	dev := boot(t, b, assets.Disk{Flavour: assets.Small, SlotA: image, EnvID: "factory"})
	ctx := within(t, 4*time.Minute)
	expect(ctx, t, dev, "user space hangs from here on")
	if err := dev.VM.ExpectEvent(ctx, "WATCHDOG", 1); err != nil {
		t.Fatal(err)
	}
}

// TestSameBytes builds an image twice, in two caches: they must not differ.
func TestSameBytes(t *testing.T) {
	b := builder(t)
	ctx := t.Context()
	r := assets.Root{Flavour: assets.Systemd, Version: "same-bytes"}
	first := rootFS(t, b, r)
	want, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Dir(first)); err != nil {
		t.Fatal(err)
	}
	second, err := b.RootFS(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < max(len(got), len(want)); at += 4096 {
		if string(got[at:at+4096]) != string(want[at:at+4096]) {
			t.Fatalf("the two images differ at offset %d", at)
		}
	}
}
