// SPDX-License-Identifier: Apache-2.0

// Package flash tests the boot environment on raw flash: it starts a board whose
// SPI NOR flash obeys the rules of flash, with simulated NAND and UBI beside it,
// and runs the tests of package guest there. Debian's libubootenv and mtd-utils
// write what bootctl/uboot reads, and the other way round.
//
// What it cannot show: real chips wear out and flip bits, and NAND has only one
// bit in a cell here. Where the power is cut is tested on the flash in memory
// (bootctl/mtd/mtdtest).
//
//	go test -tags qemu -v ./qemu/flash
package flash
