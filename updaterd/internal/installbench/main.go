// SPDX-License-Identifier: Apache-2.0

// Installbench installs a bundle with the daemon's engine, without the daemon,
// so that the benchmark can measure it as a process. It is no part of the product.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/fetch"
	"github.com/updaterd/updaterd/updaterd/internal/install"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "installbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	booted := flag.String("booted", "", "`device` of the slot that runs")
	target := flag.String("target", "", "`device` of the slot to write")
	buildID := flag.String("build-id", "", "`ID` of the system that runs")
	keys := flag.String("keyring", "", "`directory` of the keys")
	data := flag.String("data", "", "`directory` for downloads")
	mode := flag.String("mode", install.ModeStream, "store or stream")
	flag.Parse()
	if flag.NArg() != 1 {
		return fmt.Errorf("want one bundle, have %q", flag.Args())
	}
	ref, err := filepath.Abs(flag.Arg(0))
	if err != nil {
		return err
	}
	client, err := fetch.New(fetch.Options{})
	if err != nil {
		return err
	}
	defer client.Close()
	engine, err := install.New(install.Options{
		Compatible: "bench",
		Slots:      map[string]map[bootctl.Slot]string{"rootfs": {bootctl.SlotA: *booted, bootctl.SlotB: *target}},
		Booted:     func() (bootctl.Slot, error) { return bootctl.SlotA, nil },
		Policy: func() (*sign.Policy, error) {
			keyring, err := sign.LoadKeyring(*keys)
			return keyring.Policy(1), err
		},
		Dir:         *data,
		StoreBudget: 1 << 30,
		Open:        func(ref string) (install.Remote, error) { return client.Open(ref) },
		BuildID:     *buildID,
	})
	if err != nil {
		return err
	}
	r, err := engine.Inspect(ctx, ref, bootctl.SlotB, update.InstallOptions{Mode: *mode})
	if err != nil {
		return err
	}
	ignore := func(update.Progress) {}
	if err := engine.Download(ctx, r, ignore); err != nil {
		return err
	}
	stats, err := engine.Install(ctx, r, ignore)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d bytes fetched\n", r.Images[0].Recipe, stats.Fetched)
	return nil
}
