// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/sign"
)

// A Release describes a bundle for the simulated devices.
type Release struct {
	Version  string
	Sequence uint64
	Floor    uint64
	// Image is the root file system, and From the older ones that get deltas.
	Image string
	From  []string
	// Loader, unless "", is a bootloader.
	Loader string
	// Compatible and Signer are those of the product unless given.
	Compatible string
	Signer     sign.Signer
}

// Bundle builds and signs a bundle at path, unless it is there already, and
// returns how long that took.
func (p *Product) Bundle(ctx context.Context, r Release, path string) (time.Duration, error) {
	if _, err := os.Stat(path); err == nil {
		return 0, nil
	}
	begin := time.Now()
	image := bundle.ImageSpec{Class: "rootfs", Path: r.Image}
	for _, old := range r.From {
		image.Deltas = append(image.Deltas, bundle.SourceSpec{Path: old})
	}
	images := []bundle.ImageSpec{image}
	if r.Loader != "" {
		images = append(images, bundle.ImageSpec{Class: "bootloader", Path: r.Loader})
	}
	if r.Compatible == "" {
		r.Compatible = Compatible
	}
	if r.Signer == nil {
		r.Signer = p.Signer
	}
	err := bundle.Build(ctx, path, bundle.Spec{
		Compatible: []string{r.Compatible}, Version: r.Version, Sequence: r.Sequence, Floor: r.Floor, Created: time.Now(),
		Images: images, Signers: []sign.Signer{r.Signer},
	})
	return time.Since(begin), err
}

// A System is one version of the software of a simulated device.
type System struct {
	Flavour  assets.Flavour
	Packages assets.Packages
	Version  string
	Broken   assets.Broken
	// Slots are lines of the configuration for other classes than rootfs.
	Slots string
	// Boot, Download and Health are lines of the configuration's sections.
	Boot, Download, Health string
	// More files, such as a CA or another configuration of the bus.
	More []assets.File
}

// Image builds the system with the product baked in and returns its path.
func (p *Product) Image(ctx context.Context, b *assets.Builder, s System) (string, error) {
	path, err := b.RootFS(ctx, assets.Root{
		Flavour: s.Flavour, Packages: s.Packages, Version: s.Version, Broken: s.Broken,
		Files: p.Files(Configuration(s.Boot, s.Download, s.Health)+s.Slots, s.More...),
	})
	if err != nil {
		return "", fmt.Errorf("build system %s: %w", s.Version, err)
	}
	return filepath.Clean(path), nil
}
