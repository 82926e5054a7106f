// SPDX-License-Identifier: Apache-2.0

// Package deflate takes the bit packing out of compressed data, and puts it
// back bit for bit, so that two versions of a compressed file can be compared.
//
// A small change of a text changes every bit of its deflate stream (RFC 1951)
// from there on, because codes have no byte boundaries. But most of the symbols
// stay the same. [Expand] writes the symbols of a block, and how its codes are
// made, as bytes; [Pack] makes of them just the block they came from. Nothing is
// decompressed and compressed again, so it does not matter which compressor
// made the stream, or how.
//
// # The contract
//
// What Expand accepts, Pack restores; a block that could not be restored (the
// longest match in its odd spelling, padding that is not zero) is refused.
// Neither panics, whatever it is fed, and neither writes beyond the limit that
// the caller sets. The form is described in docs/delta.md.
//
// # What it does not do
//
// It does not know the text that a block stands for, so a distance that leads
// before its beginning goes unnoticed, and no checksum is compared.
package deflate
