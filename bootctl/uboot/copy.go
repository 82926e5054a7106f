// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// MaxSize is the largest environment, in bytes, that this package handles.
const MaxSize = 1 << 20

// A copy in storage (docs/boot-contract.md#storage):
//
//	offset 0  u32, as the processor stores it: CRC-32 of the data, and of nothing else
//	offset 4  u8 flag, only if there are two copies
//	then      the data
const (
	headerSingle    = 4
	headerRedundant = 5
)

func headerSize(redundant bool) int {
	if redundant {
		return headerRedundant
	}
	return headerSingle
}

// Copy is one stored copy of the environment. Flag and Data mean nothing
// unless Valid, which says that the checksum fits.
type Copy struct {
	Valid bool
	Flag  byte
	Data  []byte
}

// DecodeCopy reads a stored copy. Data aliases image.
func DecodeCopy(image []byte, redundant bool) Copy {
	header := headerSize(redundant)
	if len(image) <= header {
		return Copy{}
	}
	c := Copy{Data: image[header:]}
	if redundant {
		c.Flag = image[4]
	}
	c.Valid = crc32.ChecksumIEEE(c.Data) == binary.NativeEndian.Uint32(image)
	return c
}

// EncodeCopy makes a copy of size bytes. Without redundancy flag is not used.
func EncodeCopy(env *Env, flag byte, size int, redundant bool) ([]byte, error) {
	header := headerSize(redundant)
	if size <= header+1 || size > MaxSize {
		return nil, fmt.Errorf("encode copy: a size of %d bytes is not possible", size)
	}
	data, err := env.Encode(size - header)
	if err != nil {
		return nil, err
	}
	image := make([]byte, header, size)
	binary.NativeEndian.PutUint32(image, crc32.ChecksumIEEE(data))
	if redundant {
		image[4] = flag
	}
	return append(image, data...), nil
}

// A Convention is how two copies tell which of them is in force. The medium
// decides: U-Boot and its tools choose likewise.
type Convention int

const (
	// Counter: the copy with the larger flag, where 0 follows 255.
	Counter Convention = iota
	// ActiveObsolete: on NOR flash, where a single bit can be cleared, a copy is
	// written with flag 1 (active), and after that the flag of the other one is
	// cleared to 0 (obsolete).
	ActiveObsolete
)

// Next is the flag with which a copy is written that is to be in force after
// one with flag.
func (c Convention) Next(flag byte) byte {
	if c == ActiveObsolete {
		return 1
	}
	return flag + 1
}

// Select is U-Boot's rule for which of two copies is in force: the only valid
// one; else the one whose flag wins; else the first. It returns the index 0 or
// 1, or -1 if none is valid.
//
// On NOR flash all readers agree on the flags 0 and 1, and on equal ones. On
// others, which only a flipped bit leaves behind, they differ: env/flash.c takes
// the first copy, env/sf.c (SPI flash) and libubootenv the larger flag. Here it
// is the larger flag as well, but without a wrap: 255 is the flag of erased
// flash, which wins over 0 in env/flash.c and in both tools.
func (c Convention) Select(first, second Copy) int {
	switch {
	case !first.Valid && !second.Valid:
		return -1
	case !second.Valid:
		return 0
	case !first.Valid:
		return 1
	case c == Counter && first.Flag == 255 && second.Flag == 0:
		return 1
	case c == Counter && first.Flag == 0 && second.Flag == 255:
		return 0
	case second.Flag > first.Flag:
		return 1
	}
	return 0
}
