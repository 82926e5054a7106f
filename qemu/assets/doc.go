// SPDX-License-Identifier: Apache-2.0

// Package assets builds what the QEMU tests run: U-Boot, Debian's kernel, root
// file systems of two flavours in healthy and broken variants, and whole disks.
//
// Its contract: what it builds depends only on what it is given and on the
// packages of the Debian release, so that the same call gives the same bytes;
// everything expensive is built once, into a cache outside the checkout, under a
// key made of its recipe. It asks the machine's own apt configuration for the
// mirrors and leaves that configuration and the machine's package state alone.
// Several processes may share a cache.
//
// It needs the programs that .ci/setup installs, and it starts no virtual
// machine: that is package vm.
//
//	b, err := assets.New(assets.Options{})
//	uboot, err := b.UBoot(ctx)
//	v1, err := b.RootFS(ctx, assets.Root{Flavour: assets.Small, Version: "v1"})
//	disk, err := b.Disk(ctx, assets.Disk{Flavour: assets.Small, SlotA: v1, EnvID: "factory"}, "device.img")
package assets
