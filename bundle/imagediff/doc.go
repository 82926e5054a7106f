// SPDX-License-Identifier: Apache-2.0

// Package imagediff tells what the delta between two images costs and why, for
// the people who make the images.
//
// # The contract
//
// The cost of each chunk is that of the very bytes which a bundle would hold.
// How a chunk's cost is split among the files in it is an estimate: by the
// bytes that differ in blocks whose content the old image does not have. Every
// finding was found by looking at both images.
//
// # What it does not do
//
// It does not tell which build step changed a file, and changes no image.
//
// # Example
//
//	r, err := imagediff.Compare(ctx, imagediff.Options{Old: "v1.ext4", New: "v2.ext4"})
//	...
//	for _, f := range r.Findings {
//		fmt.Println(f.What, f.Cure)
//	}
package imagediff
