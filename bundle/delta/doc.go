// SPDX-License-Identifier: Apache-2.0

// Package delta makes and applies patches between two versions of a raw
// image, one target chunk at a time.
//
// A patch says how to make one chunk of the target from the source image:
// copies from the source, the few words in which a copy differs, and literal
// bytes, all in one range code (package rangecoder). What is compressed with deflate on both sides is compared symbol by
// symbol (package deflate). Each patch stands alone, so chunks can be made in any order, in
// parallel, and again.
//
// # The contract
//
// Patch is deterministic: the same source, chunk and offset give the same
// bytes, however many goroutines work. Apply writes every byte of dst or
// returns an error; it never reads outside the first srcSize bytes of the
// source, never panics whatever the patch or the source holds, and needs
// memory in proportion to dst, and 3 MiB for what it learns while it decodes.
//
// # What it does not do
//
// It does not authenticate anything. A source that differs from the one the
// patch was made for gives wrong bytes, or at best ErrSource, so the caller compares
// the digest of dst with what a signed manifest says.
//
// # Example
//
//	streams, err := delta.FindStreams(newImage, newSize)
//	...
//	x, err := delta.NewIndex(oldImage, oldSize, streams)
//	...
//	defer x.Close()
//	patch, err := x.Patch(chunk, 3<<20) // chunk is at 3 MiB in the new image
//	...
//	err = delta.Apply(dst, patch, oldImage, oldSize) // len(dst) == len(chunk)
//
// The format is described byte by byte in docs/delta.md.
package delta
