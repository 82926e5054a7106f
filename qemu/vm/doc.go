// SPDX-License-Identifier: Apache-2.0

// Package vm runs the simulated board: QEMU's arm64 "virt" machine under the
// project's U-Boot, with an SD card, a hardware watchdog, a network card and a
// serial console. It needs no KVM.
//
// The SD card is a file, or an nbd.Disk, whose writes can be counted and whose power
// can be cut at one of them. The guest reaches servers on the host's loopback at the
// address Host. Everything a VM starts ends with Close.
//
//	board, err := vm.Start(ctx, vm.Config{UBoot: "u-boot.bin", Card: "device.img", Dir: dir})
//	err = board.Console.Expect(ctx, "login:")
package vm
