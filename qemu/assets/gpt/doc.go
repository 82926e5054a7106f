// SPDX-License-Identifier: Apache-2.0

// Package gpt writes a GUID partition table.
//
// Its contract: the same Table gives the same bytes, and what it writes passes
// U-Boot's and Linux's checks. It does not read or change an existing table.
//
//	t := gpt.Table{Size: 512 << 20, Parts: []gpt.Part{{Name: "rootfs_a", Start: 2 << 20, Size: 200 << 20}}}
//	err := t.Write(disk)
package gpt
