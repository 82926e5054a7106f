// SPDX-License-Identifier: Apache-2.0

package fsmap

import (
	"context"
	"encoding/binary"
	"fmt"
)

const erofsSuperOffset = 1024

func readEROFS(_ context.Context, img *image) (*Map, error) {
	b, err := img.read(erofsSuperOffset, 128)
	if err != nil || binary.LittleEndian.Uint32(b) != 0xe0f5e1e2 {
		return nil, ErrUnknown
	}
	if b[12] < 9 || b[12] > 16 {
		return nil, fmt.Errorf("read EROFS superblock: it is damaged")
	}
	m := &Map{
		Type: EROFS, BlockSize: 1 << b[12], UUID: uuid(b[48:64]),
		Created: unix(int64(binary.LittleEndian.Uint64(b[24:]))),
	}
	m.Size = int64(binary.LittleEndian.Uint32(b[36:])) * m.BlockSize
	m.Incomplete = "files in EROFS are not looked up"
	return m, nil
}
