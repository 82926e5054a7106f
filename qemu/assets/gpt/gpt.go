// SPDX-License-Identifier: Apache-2.0

package gpt

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// Sizes of the format, in bytes. The tables at both ends of the disk are 34 and 33 sectors long.
const (
	sector     = 512
	entrySize  = 128
	entryCount = 128
	headerSize = 92
	firstLBA   = 2 + entryCount*entrySize/sector
)

// linuxData is the partition type 0FC63DAF-8483-4772-8E79-3D69D8477DE4, as stored.
var linuxData = [16]byte{0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4}

// A Table describes a disk of Size bytes. GUIDs are derived from the names.
type Table struct {
	Name  string
	Size  int64
	Parts []Part
}

// A Part is one partition; Start and Size are bytes.
type Part struct {
	Name        string
	Start, Size int64
}

// validate checks what a reader would stumble over.
func (t *Table) validate() error {
	if t.Size%sector != 0 || t.Size/sector < 2*firstLBA {
		return fmt.Errorf("write partition table: a disk of %d bytes is too small or not whole sectors", t.Size)
	}
	if len(t.Parts) > entryCount {
		return fmt.Errorf("write partition table: %d partitions, at most %d fit", len(t.Parts), entryCount)
	}
	end := int64(firstLBA * sector)
	for _, p := range t.Parts {
		if p.Start%sector != 0 || p.Size%sector != 0 || p.Size <= 0 || p.Start < end || p.Size > t.Size-(firstLBA-1)*sector-p.Start {
			return fmt.Errorf("write partition table: partition %q (start %d, size %d) overlaps or leaves the disk", p.Name, p.Start, p.Size)
		}
		if len(utf16.Encode([]rune(p.Name))) > 36 {
			return fmt.Errorf("write partition table: name %q is longer than 36 characters", p.Name)
		}
		end = p.Start + p.Size
	}
	return nil
}

// Write writes the protective MBR and both copies of the table.
func (t *Table) Write(w io.WriterAt) error {
	if err := t.validate(); err != nil {
		return err
	}
	last := uint64(t.Size/sector - 1)
	entries := t.entries()
	mbr := t.mbr()
	for _, b := range []struct {
		lba  uint64
		data []byte
	}{
		{0, mbr},
		{1, t.header(1, last, 2, entries)},
		{2, entries},
		{last - entryCount*entrySize/sector, entries},
		{last, t.header(last, 1, last-entryCount*entrySize/sector, entries)},
	} {
		if _, err := w.WriteAt(b.data, int64(b.lba)*sector); err != nil {
			return fmt.Errorf("write partition table: %w", err)
		}
	}
	return nil
}

func (t *Table) mbr() []byte {
	b := make([]byte, sector)
	e := b[446:]
	e[2], e[4] = 2, 0xee // starts at sector 2 of the first track; type "GPT protective"
	e[5], e[6], e[7] = 0xff, 0xff, 0xff
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(t.Size/sector-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

func (t *Table) entries() []byte {
	b := make([]byte, entryCount*entrySize)
	for i, p := range t.Parts {
		e := b[i*entrySize:]
		copy(e, linuxData[:])
		copy(e[16:], guid(t.Name, p.Name))
		binary.LittleEndian.PutUint64(e[32:], uint64(p.Start/sector))
		binary.LittleEndian.PutUint64(e[40:], uint64((p.Start+p.Size)/sector-1))
		for j, c := range utf16.Encode([]rune(p.Name)) {
			binary.LittleEndian.PutUint16(e[56+2*j:], c)
		}
	}
	return b
}

func (t *Table) header(self, other, table uint64, entries []byte) []byte {
	b := make([]byte, sector)
	copy(b, "EFI PART")
	binary.LittleEndian.PutUint32(b[8:], 0x00010000)
	binary.LittleEndian.PutUint32(b[12:], headerSize)
	binary.LittleEndian.PutUint64(b[24:], self)
	binary.LittleEndian.PutUint64(b[32:], other)
	binary.LittleEndian.PutUint64(b[40:], firstLBA)
	binary.LittleEndian.PutUint64(b[48:], uint64(t.Size/sector)-firstLBA)
	copy(b[56:], guid(t.Name, ""))
	binary.LittleEndian.PutUint64(b[72:], table)
	binary.LittleEndian.PutUint32(b[80:], entryCount)
	binary.LittleEndian.PutUint32(b[84:], entrySize)
	binary.LittleEndian.PutUint32(b[88:], crc32.ChecksumIEEE(entries))
	binary.LittleEndian.PutUint32(b[16:], crc32.ChecksumIEEE(b[:headerSize]))
	return b
}

// guid derives a random-looking GUID (version 8) from names, so that a disk is the same every time.
func guid(names ...string) []byte {
	h := sha256.New()
	for _, n := range names {
		fmt.Fprintf(h, "%d:%s,", len(n), n)
	}
	g := h.Sum(nil)[:16]
	g[7] = g[7]&0x0f | 0x80
	g[8] = g[8]&0x3f | 0x80
	return g
}
