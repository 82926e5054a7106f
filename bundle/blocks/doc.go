// SPDX-License-Identifier: Apache-2.0

// Package blocks finds the pieces of a new image in images that are there
// already, whatever they are.
//
// Its one contract: what it says is a hint. A frame is looked for by eight bytes
// of a hash, so whoever uses what was found reads it and compares the whole
// chunk with its digest. In return a search takes one pass over each source and
// 12 bytes of memory for each frame, whatever the size of the source.
//
// Frames lie anywhere in a source that is a multiple of [Size] bytes, as files
// do in every file system worth an update.
//
//	search := blocks.NewSearch(frameSize, contents)
//	err := blocks.Scan(ctx, source, size, search.In(0))
//	place, found := search.Find(content)
package blocks
