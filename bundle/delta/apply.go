// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"fmt"
	"io"
)

// Apply makes the chunk dst from a patch and the first srcSize bytes of src.
// Use an Applier to apply more than one patch.
func Apply(dst, patch []byte, src io.ReaderAt, srcSize int64) error {
	return new(Applier).Apply(dst, patch, src, srcSize)
}

// An Applier applies patches one after the other and keeps its buffers
// between them, about 3 MiB. It must not be used by two goroutines at once. The
// zero Applier is ready.
type Applier struct {
	codec *codec
	runs  expander
}

// Apply makes the chunk dst from a patch and the first srcSize bytes of src.
// After an error the content of dst is undefined.
func (a *Applier) Apply(dst, patch []byte, src io.ReaderAt, srcSize int64) error {
	if len(dst) > MaxTarget {
		return fmt.Errorf("apply patch: chunk of %d bytes is longer than %d", len(dst), MaxTarget)
	}
	if srcSize < 0 || srcSize > maxSource {
		return fmt.Errorf("apply patch: source size %d is out of range", srcSize)
	}
	if a.codec == nil {
		a.codec = newCodec()
	}
	switch {
	case len(patch) > 0 && patch[0] == versionPlain:
		return a.codec.decode(dst, patch[1:], origin{image: src, size: srcSize})
	case len(patch) > 0 && patch[0] == versionExpanded:
		return a.expanded(dst, patch[1:], src, srcSize)
	}
	return malformed("no patch of a version that is known")
}

// expanded applies a patch that works on expanded deflate blocks.
func (a *Applier) expanded(dst, patch []byte, src io.ReaderAt, srcSize int64) error {
	x, rest, err := parseExpansion(patch, len(dst), srcSize)
	if err != nil {
		return err
	}
	if err := a.runs.fill(&x, len(dst), src); err != nil {
		return err
	}
	if cap(a.runs.chunk) < x.length {
		a.runs.chunk = make([]byte, x.length)
	}
	a.runs.chunk = a.runs.chunk[:x.length]
	if err := a.codec.decode(a.runs.chunk, rest, origin{src, x.base, a.runs.pool}); err != nil {
		return err
	}
	return a.runs.collapse(dst, x.runs)
}
