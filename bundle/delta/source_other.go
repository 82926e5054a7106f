// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package delta

import "io"

func mapFile(io.ReaderAt, int) (b []byte, unmap func() error, ok bool) { return nil, nil, false }
