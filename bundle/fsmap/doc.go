// SPDX-License-Identifier: Apache-2.0

// Package fsmap tells which file of a file system each byte of its image
// belongs to. It is for people who want to know why a delta is large.
//
// # The contract
//
// Read looks at an image nobody vouches for: it trusts no number in it, needs
// memory in proportion to what the image really holds, ends after work in
// proportion to the size of the image, and returns an error for what it cannot
// read, never a panic. The extents of a Map lie inside the image, are sorted
// and do not overlap.
//
// # What it does not do
//
// It does not check a file system for consistency, does not verify checksums
// and does not decompress file contents. It must not become part of the device
// binary, which writes images without knowing what is in them; its check of a
// configuration reads superblocks with package ext4super alone.
//
// # Example
//
//	m, err := fsmap.Read(ctx, image, size)
//	...
//	for _, e := range m.Extents {
//		fmt.Println(e.Offset, e.Length, m.Name(e))
//	}
package fsmap
