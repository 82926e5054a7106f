// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package delta

import "io"

func mapFile(io.ReaderAt, int) (b []byte, ok bool) { return nil, false }
func unmapFile([]byte) error                       { return nil }
func forgetPages([]byte) error                     { return nil }
