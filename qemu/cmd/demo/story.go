// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/qemu/agent/agentproto"
	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/qemu/origin"
	"github.com/updaterd/updaterd/qemu/vm"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/client"
)

const health = `units = ["dbus.service", "systemd-logind.service"]
min_uptime = "3s"
deadline = "4m"`

// A story is one run of the demonstration.
type story struct {
	builder *assets.Builder
	dir     string
	out     io.Writer
	verbose bool

	product *device.Product
	device  *device.Device
	server  *origin.Server
	begin   time.Time
}

func (s *story) say(format string, args ...any) {
	fmt.Fprintf(s.out, "[%4.0fs] "+format+"\n", append([]any{time.Since(s.begin).Seconds()}, args...)...)
}

func (s *story) tell(ctx context.Context) (err error) {
	s.begin = time.Now()
	s.say("building U-Boot, kernels and two Debian arm64 systems (kept for the next time)")
	if err := s.builder.Prepare(ctx); err != nil {
		return err
	}
	if s.product, err = device.NewProduct(ctx, filepath.Join(s.dir, "product")); err != nil {
		return err
	}
	s.say("made a release key, %s; the devices trust it", filepath.Base(s.product.KeyFile))
	images := map[string]string{}
	for _, system := range []device.System{
		{Version: "1.0", Packages: assets.Base},
		{Version: "2.0", Packages: assets.Updated},
		{Version: "3.0", Packages: assets.Updated, Broken: assets.BrokenHealth},
	} {
		system.Flavour, system.Health = assets.Systemd, health
		if images[system.Version], err = s.product.Image(ctx, s.builder, system); err != nil {
			return err
		}
	}
	for i, step := range [][2]string{{"1.0", "2.0"}, {"2.0", "3.0"}} {
		if err := s.release(ctx, step[1], uint64(i+2), images[step[0]], images[step[1]]); err != nil {
			return err
		}
	}
	if s.server, err = origin.Start(s.dir, nil); err != nil {
		return err
	}
	defer s.server.Close()
	var console io.Writer
	if s.verbose {
		console = os.Stderr
	}
	s.device, err = device.New(ctx, s.builder, assets.Disk{Flavour: assets.Systemd, SlotA: images["1.0"], EnvID: "factory"}, s.dir, console)
	if err != nil {
		return err
	}
	defer s.device.Close()
	s.say("switching the device on: version 1.0 in slot a, slot b empty")
	if err := s.device.PowerOn(ctx); err != nil {
		return err
	}
	if err := s.up(ctx, s.device.Up); err != nil {
		return err
	}
	if err := s.update(ctx, "2.0", 1, client.Success); err != nil {
		return err
	}
	if err := s.update(ctx, "3.0", 2, client.RolledBack); err != nil {
		return err
	}
	if err := s.show(ctx, "updaterctl", "history"); err != nil {
		return err
	}
	s.say("switching the device off; make shell gives you a console on it")
	if _, err := s.device.Run(ctx, "sync"); err != nil {
		return err
	}
	return nil
}

// release builds the bundle of a version and says what it costs.
func (s *story) release(ctx context.Context, version string, sequence uint64, old, image string) error {
	path := filepath.Join(s.dir, version+".upb")
	took, err := s.product.Bundle(ctx, device.Release{Version: version, Sequence: sequence, Image: image, From: []string{old}}, path)
	if err != nil {
		return err
	}
	keyring, err := sign.LoadKeyring(s.product.Keyring)
	if err != nil {
		return err
	}
	f, err := bundle.Open(path, keyring.Policy(1))
	if err != nil {
		return err
	}
	defer f.Close()
	for _, img := range f.Manifest.Images {
		line := fmt.Sprintf("bundle %s built and signed in %.0f s: image %s", version, took.Seconds(), mb(img.Size))
		for _, r := range img.Recipes {
			line += fmt.Sprintf(", %s %s", r.Kind, mb(r.Download(&img)))
		}
		s.say("%s", line)
	}
	return nil
}

// update asks for a version over D-Bus and waits until the device has decided.
func (s *story) update(ctx context.Context, version string, resets int, want client.Outcome) error {
	url := s.server.URL(vm.Host, version+".upb")
	if err := s.show(ctx, "updaterctl", "inspect", url); err != nil {
		return err
	}
	s.server.Reset()
	begin, already := time.Now(), s.device.Resets()
	if err := s.follow(ctx, "updaterctl", "install", url); err != nil {
		return err
	}
	s.say("installed in %.0f s; %s over the wire", time.Since(begin).Seconds(), mb(s.server.Sent()))
	s.say("device# updaterctl reboot")
	if err := s.device.Reboot(ctx); err != nil {
		return err
	}
	s.say("rebooting into the trial of %s", version)
	for i := 1; i <= resets; i++ {
		err := s.up(ctx, func(ctx context.Context) error { return s.device.AwaitReset(ctx, already+i) })
		if err != nil {
			return err
		}
		if i < resets {
			s.say("the trial is judged")
		}
	}
	limited, cancel := context.WithTimeout(ctx, 6*time.Minute)
	defer cancel()
	status, err := s.device.Decided(limited)
	if err != nil {
		return err
	}
	if status.LastResult == nil || status.LastResult.Outcome != want {
		return fmt.Errorf("version %s ended as %+v, not as %s", version, status.LastResult, want)
	}
	s.say("%s: %s", status.LastResult.Outcome, status.LastResult.Message)
	return s.show(ctx, "updaterctl", "status")
}

func (s *story) up(ctx context.Context, wait func(context.Context) error) error {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := wait(ctx); err != nil {
		return err
	}
	s.say("the device is up again after %.0f s", time.Since(begin).Seconds())
	return nil
}

// show runs a command on the device and prints it with what it says.
func (s *story) show(ctx context.Context, argv ...string) error {
	s.say("device# %s", strings.Join(argv, " "))
	out, err := s.device.Run(ctx, argv...)
	s.indent(out)
	return err
}

func (s *story) indent(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(s.out, "        %s\n", strings.TrimRight(line, "\n"))
	}
}

// follow is show for a command that takes its time: it prints what the command
// says while it says it.
func (s *story) follow(ctx context.Context, argv ...string) error {
	s.say("device# %s", strings.Join(argv, " "))
	const log, end = "/tmp/demo.log", "/tmp/demo.end"
	script := `"$@" >` + log + ` 2>&1; echo $? >` + end
	_, err := s.device.Agent().Exec(ctx, agentproto.Command{
		Argv: append([]string{"setsid", "-f", "sh", "-c", "rm -f " + end + "; " + script, "sh"}, argv...),
	})
	if err != nil {
		return err
	}
	for printed := 0; ; {
		exit, ended := s.device.Run(ctx, "cat", end)
		text, err := s.device.Run(ctx, "cat", log)
		if err == nil && len(text) > printed {
			s.indent(text[printed:])
			printed = len(text)
		}
		if ended == nil && strings.TrimSpace(exit) != "" {
			if strings.TrimSpace(exit) != "0" {
				return fmt.Errorf("%s ended with status %s", strings.Join(argv, " "), strings.TrimSpace(exit))
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func mb(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
