// SPDX-License-Identifier: Apache-2.0

// Command demo shows the whole product at work on the simulated board: a
// Debian arm64 system that updates itself by a delta, proves itself and is
// confirmed, and then a broken one that it falls back from.
//
// With -shell it opens the serial console of the device that it left.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	shell := flags.Bool("shell", false, "open the console of the device that the demonstration left")
	verbose := flags.Bool("console", false, "show the device's serial console")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cache, err := assets.DefaultCache()
	if err != nil {
		return err
	}
	builder, err := assets.New(assets.Options{Log: os.Stderr})
	if err != nil {
		return err
	}
	dir := filepath.Join(cache, "demo")
	if *shell {
		return console(ctx, builder, dir)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	s := &story{builder: builder, dir: dir, out: os.Stdout, verbose: *verbose}
	return s.tell(ctx)
}

// console gives the terminal to the device and waits until it is switched off.
func console(ctx context.Context, b *assets.Builder, dir string) error {
	path := filepath.Join(dir, "device.img")
	if _, err := os.Stat(path); err != nil {
		return errors.New("there is no device yet: run make demo first")
	}
	uboot, err := b.UBoot(ctx)
	if err != nil {
		return err
	}
	d, err := device.Open(uboot, path, dir, os.Stdout)
	if err != nil {
		return err
	}
	defer d.Close()
	d.Terminal = true
	fmt.Println("the device starts; you will be root on its console. Leave with Ctrl-a x.")
	if err := d.PowerOn(ctx); err != nil {
		return err
	}
	select {
	case <-d.VM.Exited():
	case <-ctx.Done():
	}
	return nil
}
