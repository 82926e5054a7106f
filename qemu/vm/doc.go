// SPDX-License-Identifier: Apache-2.0

// Package vm runs the simulated board: QEMU's arm64 "virt" machine under the
// project's U-Boot, with an SD card, a hardware watchdog, a network card and a
// serial console. It needs no KVM.
//
// The SD card is an nbd.Disk, so that its writes can be counted and its power
// cut. The guest reaches servers on the host's loopback at the address Host.
// Everything a VM starts ends with Close.
//
//	disk, err := nbd.OpenDisk("device.img")
//	board, err := vm.Start(ctx, vm.Config{UBoot: "u-boot.bin", Disk: disk, Dir: dir})
//	err = board.Console.Expect(ctx, "login:")
package vm
