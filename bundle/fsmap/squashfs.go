// SPDX-License-Identifier: Apache-2.0

package fsmap

import (
	"context"
	"encoding/binary"
	"fmt"
)

var squashCompressors = [...]string{1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}

func readSquashFS(_ context.Context, img *image) (*Map, error) {
	b, err := img.read(0, 96)
	if err != nil || string(b[:4]) != "hsqs" {
		return nil, ErrUnknown
	}
	kind, block := int(binary.LittleEndian.Uint16(b[20:])), int64(binary.LittleEndian.Uint32(b[12:]))
	m := &Map{
		Type: SquashFS, BlockSize: block, Size: int64(binary.LittleEndian.Uint64(b[40:])),
		Created: unix(int64(binary.LittleEndian.Uint32(b[8:]))),
	}
	if kind < 1 || kind >= len(squashCompressors) || m.Size < 96 || block < 4096 || block > 1<<20 {
		return nil, fmt.Errorf("read squashfs superblock: it is damaged")
	}
	m.Compression = squashCompressors[kind]
	m.Incomplete = "files in squashfs are not looked up"
	return m, nil
}
