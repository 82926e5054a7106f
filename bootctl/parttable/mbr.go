// SPDX-License-Identifier: Apache-2.0

package parttable

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// mbr is the table in the first sector: four entries of 16 bytes from 446 on.
type mbr struct{}

const (
	mbrEntries   = 446
	mbrEntrySize = 16
	mbrType      = 4
	mbrStart     = 8  // in an entry: first sector
	mbrCount     = 12 // number of sectors

	mbrProtective = 0xee
)

func (mbr) load(d disk) ([]byte, error) {
	b, err := read(d, 0, sector)
	if err != nil {
		return nil, err
	}
	if b[510] != 0x55 || b[511] != 0xaa {
		return nil, errors.New("the first sector is no MBR")
	}
	return b, nil
}

func mbrEntry(b []byte, number int) []byte {
	return b[mbrEntries+(number-1)*mbrEntrySize:][:mbrEntrySize]
}

func (m mbr) entry(d disk, number int) (now extent, taken []extent, err error) {
	b, err := m.load(d)
	if err != nil {
		return extent{}, nil, err
	}
	taken = []extent{{0, 1}}
	for i := 1; i <= 4; i++ {
		// Beside a GPT, one entry covers all that is not for others to use.
		if e := mbrExtent(b, i); i != number && e.count > 0 && mbrEntry(b, i)[mbrType] != mbrProtective {
			taken = append(taken, e)
		}
	}
	return mbrExtent(b, number), taken, nil
}

func mbrExtent(b []byte, number int) extent {
	e := mbrEntry(b, number)
	return extent{uint64(binary.LittleEndian.Uint32(e[mbrStart:])), uint64(binary.LittleEndian.Uint32(e[mbrCount:]))}
}

func (m mbr) move(d disk, number int, to extent) error {
	b, err := m.load(d)
	if err != nil {
		return err
	}
	next := mbrMoved(b, number, to)
	if bytes.Equal(next, b) {
		return nil
	}
	// Commit point: one sector, which a power cut does not tear.
	return write(d, 0, next)
}

// mbrMoved is b with another place in an entry.
func mbrMoved(b []byte, number int, to extent) []byte {
	if mbrExtent(b, number) == to {
		return b
	}
	b = bytes.Clone(b)
	e := mbrEntry(b, number)
	// Cylinder, head and sector of both ends: "see below".
	copy(e[1:4], []byte{0xfe, 0xff, 0xff})
	copy(e[5:8], []byte{0xfe, 0xff, 0xff})
	binary.LittleEndian.PutUint32(e[mbrStart:], uint32(to.start))
	binary.LittleEndian.PutUint32(e[mbrCount:], uint32(to.count))
	return b
}
