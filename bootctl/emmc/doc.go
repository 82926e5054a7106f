// SPDX-License-Identifier: Apache-2.0

// Package emmc selects which of an eMMC's two boot partitions the processor's
// ROM starts, by the register PARTITION_CONFIG of the card.
//
// Its contract: one register write, which keeps every other bit as it is and is
// read back. It enables no boot partition on a card that starts from elsewhere,
// and it does not talk to a card through a kernel that is known to garble such
// commands. It neither reads nor writes what is in the partitions.
//
//	s, err := emmc.Open("/dev/mmcblk0boot0", "/dev/mmcblk0boot1")
//	err = s.Select("b")
package emmc
