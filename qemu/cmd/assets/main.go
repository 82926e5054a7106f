// SPDX-License-Identifier: Apache-2.0

// Command assets builds ahead of time what the QEMU tests need, so that they
// start at once: U-Boot, kernels and the Debian systems, two at a time.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/updaterd/updaterd/qemu/assets"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "assets:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("assets", flag.ContinueOnError)
	flags.SetOutput(stderr)
	cache := flags.String("cache", "", "`directory` of what is built (default $UPDATERD_CACHE, or updaterd in the user's cache)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b, err := assets.New(assets.Options{Cache: *cache, Log: stderr})
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := b.Prepare(ctx); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "assets are ready after %.0f s\n", time.Since(begin).Seconds())
	return nil
}
