// SPDX-License-Identifier: Apache-2.0

// Package bundle is the file format of a release: what a bundle says, how it is
// checked, read on a host, and built. docs/bundle-format.md has it byte by byte.
//
// Its one contract: nothing after the envelope is believed, decoded or even
// looked at except through a length, an offset and a digest in the manifest,
// and the manifest is only handed out after its signature was verified. Every
// byte of a file is accounted for. Every size is bounded before memory is taken.
//
// A device reads the first [HeaderSize] bytes, learns from [ParseHeader] how
// long the envelope is, and gives both to [Verify]. With the manifest in hand
// it fetches the tables ([ParseChunks], [ParseTable]) and the chunks it needs,
// and turns each into content with a [Decoder]. A host uses [Open], which does
// all of this on a file, and [Build] makes one.
//
//	v, err := bundle.Verify(head, policy, notBefore)
//	img := v.Manifest.Image("rootfs")
//	digests, err := bundle.ParseChunks(img, chunkTable)
//	entries, err := bundle.ParseTable(img, img.Full(), recipeTable)
//	window := bundle.NewWindow(img, make([]byte, bundle.WindowSize(img, img.Full())))
//	for i := range bundle.Order(len(entries)) {
//		prefix, err := window.Prefix(img.Full(), i, readFromSlot) // if entries[i].Kind is Prefixed
//		err = decoder.Decode(window.Place(i), digests[i], entries[i], encoded, bundle.Basis{Prefix: prefix})
//		window.Keep(i)
//	}
//
// The package does not choose a recipe, compare versions, fetch anything or
// write to a slot, and it does not know what an installed system is.
package bundle
