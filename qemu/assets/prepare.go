// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Prepare builds everything that takes long and does not depend on the product.
func (b *Builder) Prepare(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	// Two at a time, the longest first: each uses one core, most of the time.
	g.SetLimit(2)
	for _, build := range []func() error{
		func() error { _, err := b.systemdRoot(ctx, Base); return err },
		func() error { _, err := b.systemdRoot(ctx, Updated); return err },
		func() error { _, err := b.UBoot(ctx); return err },
		func() error { _, err := b.Kernel(ctx, Base); return err },
		func() error { _, err := b.Kernel(ctx, Updated); return err },
		func() error { _, err := b.smallRoot(ctx, Base); return err },
		func() error { _, err := b.smallRoot(ctx, Updated); return err },
	} {
		g.Go(build)
	}
	return g.Wait()
}
