// SPDX-License-Identifier: Apache-2.0

package parttable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// gpt is a GUID partition table: a header in sector 1 with its entries behind it,
// and the same at the end of the disk, the entries before the header.
type gpt struct{}

const (
	maxEntries = 128
	// Where the fields of a header are.
	gptHeaderSize = 12 // the length that its checksum covers
	gptCRC        = 16
	gptSelf       = 24 // its own sector
	gptOther      = 32 // that of the other header
	gptTable      = 72 // first sector of the entries
	gptCount      = 80
	gptEntrySize  = 84
	gptTableCRC   = 88
	gptLeast      = 92
	// Where the fields of an entry are.
	gptFirst, gptLast = 32, 40
)

// A gptCopy is one of the two tables.
type gptCopy struct {
	header, entries []byte
	size            int // of an entry
}

var errNoTable = errors.New("no intact partition table")

// parseHeader checks a header and returns where its entries are and how long they are.
func parseHeader(h []byte, self uint64) (c gptCopy, table uint64, err error) {
	le := binary.LittleEndian
	n := le.Uint32(h[gptHeaderSize:])
	if string(h[:8]) != "EFI PART" || n < gptLeast || n > sector {
		return c, 0, errNoTable
	}
	sum := bytes.Clone(h[:n])
	clear(sum[gptCRC : gptCRC+4])
	if crc32.ChecksumIEEE(sum) != le.Uint32(h[gptCRC:]) || le.Uint64(h[gptSelf:]) != self {
		return c, 0, errNoTable
	}
	count, size := le.Uint32(h[gptCount:]), le.Uint32(h[gptEntrySize:])
	if size < 128 || size > sector || size%128 != 0 || count == 0 || count > maxEntries || count*size%sector != 0 {
		return c, 0, fmt.Errorf("%d entries of %d bytes are not supported", count, size)
	}
	c = gptCopy{header: h, entries: make([]byte, count*size), size: int(size)}
	return c, le.Uint64(h[gptTable:]), nil
}

// loadAt reads the table whose header is in sector self. Its entries lie right
// before or behind it, so that both are written as one.
func loadAt(d disk, self uint64) (gptCopy, error) {
	h, err := read(d, self, sector)
	if err != nil {
		return gptCopy{}, err
	}
	c, table, err := parseHeader(h, self)
	if err != nil {
		return gptCopy{}, err
	}
	long := uint64(len(c.entries) / sector)
	if self == 1 && table != 2 || self != 1 && (self <= long || table != self-long) {
		return gptCopy{}, fmt.Errorf("the entries in sector %d are not beside their header in sector %d, so that both could be written as one", table, self)
	}
	if c.entries, err = read(d, table, len(c.entries)); err != nil {
		return gptCopy{}, err
	}
	if crc32.ChecksumIEEE(c.entries) != binary.LittleEndian.Uint32(h[gptTableCRC:]) {
		return gptCopy{}, errNoTable
	}
	return c, nil
}

// load reads both tables. One of them may be damaged, and then has no header.
func (gpt) load(d disk) (first, second gptCopy, last uint64, err error) {
	size, err := d.Size()
	if err != nil {
		return first, second, 0, err
	}
	last = uint64(size/sector) - 1
	first, err = loadAt(d, 1)
	if err != nil && !errors.Is(err, errNoTable) {
		return first, second, 0, err
	}
	if err == nil {
		// The disk may be larger than the image that was written to it. Whoever finds
		// the first table torn looks for the second at the end, and nowhere else.
		if other := binary.LittleEndian.Uint64(first.header[gptOther:]); other != last {
			return first, second, 0, fmt.Errorf("the second table is said to end in sector %d, and the disk ends in %d, where it is looked for if the first is torn: move it there, with \"sgdisk --move-second-header\"", other, last)
		}
	}
	var err2 error
	if second, err2 = loadAt(d, last); err2 != nil && !errors.Is(err2, errNoTable) {
		return first, second, 0, err2
	}
	if err != nil && err2 != nil {
		return first, second, 0, errNoTable
	}
	return first, second, last, nil
}

func (g gpt) entry(d disk, number int) (now extent, taken []extent, err error) {
	first, second, last, err := g.load(d)
	if err != nil {
		return extent{}, nil, err
	}
	if first.header == nil {
		first = second // as whoever starts the device does
	}
	long := uint64(len(first.entries) / sector)
	taken = []extent{{0, 2 + long}, {last - long, long + 1}}
	for i := range len(first.entries) / first.size {
		if e, err := first.extent(i + 1); err == nil && i+1 != number {
			taken = append(taken, e)
		}
	}
	now, err = first.extent(number)
	return now, taken, err
}

func (c gptCopy) extent(number int) (extent, error) {
	if number > len(c.entries)/c.size {
		return extent{}, fmt.Errorf("there is no partition %d", number)
	}
	e := c.entries[(number-1)*c.size:]
	first, last := binary.LittleEndian.Uint64(e[gptFirst:]), binary.LittleEndian.Uint64(e[gptLast:])
	if last < first || bytes.Count(e[:16], []byte{0}) == 16 { // no type
		return extent{}, fmt.Errorf("there is no partition %d", number)
	}
	return extent{first, last - first + 1}, nil
}

func (g gpt) move(d disk, number int, to extent) error {
	first, second, last, err := g.load(d)
	if err != nil {
		return err
	}
	now := first
	if now.header == nil {
		now = second
	}
	next := now.moved(number, to)
	if second.header == nil || !bytes.Equal(second.entries, now.entries) && !bytes.Equal(second.entries, next.entries) {
		// The first one is about to be written, which a cut may tear: the other has
		// to be whole before, and say what the first one says now, or will.
		if err := write(d, last-uint64(len(now.entries)/sector), now.image(last, 1)); err != nil {
			return err
		}
		second = now
	}
	if first.header == nil || !bytes.Equal(first.entries, next.entries) {
		// Commit point. A table that is torn fails its checksum, and the second one is
		// taken: nothing has changed. Complete, it is the one that is taken.
		if err := write(d, 1, next.image(1, last)); err != nil {
			return err
		}
	}
	if !bytes.Equal(second.entries, next.entries) {
		return write(d, last-uint64(len(next.entries)/sector), next.image(last, 1))
	}
	return nil
}

// moved is a copy with another place in an entry.
func (c gptCopy) moved(number int, to extent) gptCopy {
	c.entries = bytes.Clone(c.entries)
	e := c.entries[(number-1)*c.size:]
	binary.LittleEndian.PutUint64(e[gptFirst:], to.start)
	binary.LittleEndian.PutUint64(e[gptLast:], to.start+to.count-1)
	return c
}

// image is the header for a sector, with the entries on the side where they belong.
func (c gptCopy) image(self, other uint64) []byte {
	le := binary.LittleEndian
	h := bytes.Clone(c.header)
	le.PutUint64(h[gptSelf:], self)
	le.PutUint64(h[gptOther:], other)
	table := uint64(2)
	if self != 1 {
		table = self - uint64(len(c.entries)/sector)
	}
	le.PutUint64(h[gptTable:], table)
	le.PutUint32(h[gptTableCRC:], crc32.ChecksumIEEE(c.entries))
	clear(h[gptCRC : gptCRC+4])
	le.PutUint32(h[gptCRC:], crc32.ChecksumIEEE(h[:le.Uint32(h[gptHeaderSize:])]))
	if self == 1 {
		return append(h, c.entries...)
	}
	return append(bytes.Clone(c.entries), h...)
}
