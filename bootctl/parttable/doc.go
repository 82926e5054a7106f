// SPDX-License-Identifier: Apache-2.0

// Package parttable selects which half of a region of a disk the processor's ROM
// starts, by the entry of the partition table that says where the bootloader is.
//
// Its contract: an MBR is changed by one write of its sector. A GPT is changed by
// one write of the first table, then by one of the second, so that one of the two
// is intact at any time, and the one that is taken says the old place or the new
// one. Nothing but the one entry, and the checksums over it, is changed; a table
// that is not understood is left alone. The disk's blocks have 512 bytes. The second
// table of a GPT ends the disk, and the kernel was told to look there ("gpt").
//
//	s, err := parttable.OpenMBR("/dev/mmcblk0", 1, halves)
//	err = s.Select("b")
package parttable
