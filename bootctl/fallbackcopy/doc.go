// SPDX-License-Identifier: Apache-2.0

// Package fallbackcopy selects between two copies of a bootloader at fixed
// places, of which the processor's ROM starts the first one that has a header.
//
// Its contract: the first copy is not selected while its first sector is zeros,
// and selected again by writing that sector back, so that either is one write of
// one sector. The sector is kept in a file meanwhile. The second copy's is never
// touched here: it does not matter while the first one has its own. A medium that
// cannot write a sector alone, such as raw flash behind mtdblock, is refused.
//
//	header := &fallbackcopy.Header{Path: "/data/updaterd/headers/bootloader.a"}
//	s := fallbackcopy.New("/dev/mmcblk0p1", "/dev/mmcblk0p2", header)
//	err := s.Select("b")
package fallbackcopy
