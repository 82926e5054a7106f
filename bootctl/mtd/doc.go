// SPDX-License-Identifier: Apache-2.0

// Package mtd reads, erases and writes raw flash through the kernel's MTD
// character devices (/dev/mtd0).
//
// Its one contract: a call does what one system call of the kernel does, with
// nothing remembered, retried or put right. What follows from flash's rules (a
// write only clears bits, an erase sets a whole block, NAND has bad blocks) is
// for the caller; see bootctl/uboot. The flash of package mtdtest obeys the same
// rules in memory and can lose its power.
//
//	d, err := mtd.Open("/dev/mtd0", os.O_RDWR)
//	if err != nil {
//		return err
//	}
//	defer d.Close()
//	err = d.Erase(0, d.Info().EraseSize)
package mtd
