// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Prepare builds everything that takes long and does not depend on the product.
// It also drops images from the cache that nobody has used for some days.
func (b *Builder) Prepare(ctx context.Context) error {
	if err := b.prune(3 * 24 * time.Hour); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	// Two at a time, the longest first: each uses one core, most of the time.
	g.SetLimit(2)
	for _, build := range []func() error{
		func() error { _, err := b.systemdRoot(ctx, Base); return err },
		func() error { _, err := b.systemdRoot(ctx, Updated); return err },
		func() error { _, err := b.UBoot(ctx); return err },
		func() error { _, err := b.Loader(ctx, Base); return err },
		func() error { _, err := b.Kernel(ctx, Base); return err },
		func() error { _, err := b.Kernel(ctx, Updated); return err },
		func() error { _, err := b.smallRoot(ctx, Base); return err },
		func() error { _, err := b.smallRoot(ctx, Updated); return err },
		func() error { _, err := b.FlashBoard(ctx); return err },
	} {
		g.Go(build)
	}
	return g.Wait()
}

// prune removes root file systems, and remains of builds that were killed, that
// are older than age: each change of the product makes new ones.
func (b *Builder) prune(age time.Duration) error {
	entries, err := os.ReadDir(b.cache)
	if err != nil {
		return fmt.Errorf("clean cache: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, "rootfs-") && !strings.HasPrefix(name, "guest-binary-") && !strings.Contains(name, "-work-") && !strings.HasSuffix(name, ".new") {
			continue
		}
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < age {
			continue // gone already, or still young
		}
		if err := os.RemoveAll(filepath.Join(b.cache, name)); err != nil {
			return fmt.Errorf("clean cache: %w", err)
		}
	}
	return nil
}
