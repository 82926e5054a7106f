// SPDX-License-Identifier: Apache-2.0

package gpt_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/updaterd/updaterd/qemu/assets/gpt"
)

// A medium is a disk in memory.
type medium []byte

func (m medium) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(m)) {
		return 0, io.ErrShortWrite
	}
	return copy(m[off:], p), nil
}

// checkHeader reads a header as a firmware does and returns its entries.
func checkHeader(t rapid.TB, m medium, lba, other uint64) []byte {
	t.Helper()
	le := binary.LittleEndian
	h := bytes.Clone(m[lba*512 : lba*512+92])
	if string(h[:8]) != "EFI PART" || le.Uint32(h[8:]) != 0x10000 || le.Uint32(h[12:]) != 92 {
		t.Fatalf("header at sector %d = % x", lba, h)
	}
	sum := le.Uint32(h[16:])
	le.PutUint32(h[16:], 0)
	if got := crc32.ChecksumIEEE(h); got != sum {
		t.Fatalf("header at sector %d: checksum %x, want %x", lba, sum, got)
	}
	if self, alt := le.Uint64(h[24:]), le.Uint64(h[32:]); self != lba || alt != other {
		t.Fatalf("header at sector %d says it is at %d and the other at %d", lba, self, alt)
	}
	if size, count := le.Uint32(h[84:]), le.Uint32(h[80:]); size != 128 || count != 128 {
		t.Fatalf("header at sector %d: %d entries of %d bytes", lba, count, size)
	}
	at := le.Uint64(h[72:]) * 512
	entries := m[at : at+128*128]
	if got := crc32.ChecksumIEEE(entries); got != le.Uint32(h[88:]) {
		t.Fatalf("entries of the header at sector %d: checksum %x, want %x", lba, le.Uint32(h[88:]), got)
	}
	first, last := le.Uint64(h[40:]), le.Uint64(h[48:])
	for i := range 128 {
		e := entries[i*128:]
		if start, end := le.Uint64(e[32:]), le.Uint64(e[40:]); start != 0 && (start < first || end > last || end < start) {
			t.Fatalf("partition %d, sectors %d to %d, is outside %d to %d", i+1, start, end, first, last)
		}
	}
	return entries
}

func TestWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := gpt.Table{Name: "disk", Size: rapid.Int64Range(1<<11, 1<<13).Draw(t, "sectors") * 512}
		at := int64(34)
		for range rapid.IntRange(0, 5).Draw(t, "partitions") {
			start := at + rapid.Int64Range(0, 100).Draw(t, "gap")
			size := rapid.Int64Range(1, 300).Draw(t, "size")
			if start+size > table.Size/512-33 {
				break
			}
			table.Parts = append(table.Parts, gpt.Part{Name: rapid.StringMatching(`[a-zäö_]{0,18}`).Draw(t, "name"), Start: start * 512, Size: size * 512})
			at = start + size
		}
		m := make(medium, table.Size)
		if err := table.Write(m); err != nil {
			t.Fatal(err)
		}
		last := uint64(table.Size/512 - 1)
		first := checkHeader(t, m, 1, last)
		if !bytes.Equal(first, checkHeader(t, m, last, 1)) {
			t.Fatal("the two copies of the entries differ")
		}
		for i, p := range table.Parts {
			e := first[i*128:]
			if start, end := int64(binary.LittleEndian.Uint64(e[32:])), int64(binary.LittleEndian.Uint64(e[40:])); start*512 != p.Start || (end+1)*512 != p.Start+p.Size {
				t.Fatalf("partition %d: sectors %d to %d, want bytes %d to %d", i+1, start, end, p.Start, p.Start+p.Size)
			}
		}
		again := make(medium, table.Size)
		if err := table.Write(again); err != nil || !bytes.Equal(m, again) {
			t.Fatalf("writing again: %v, same bytes: %v", err, bytes.Equal(m, again))
		}
	})
}

func TestWriteRefuses(t *testing.T) {
	const mib = 1 << 20
	tests := map[string]gpt.Table{
		"tiny disk":            {Size: 512},
		"part of a sector":     {Size: mib + 1},
		"over the first table": {Size: mib, Parts: []gpt.Part{{Start: 512, Size: 512}}},
		"over the last table":  {Size: mib, Parts: []gpt.Part{{Start: mib / 2, Size: mib / 2}}},
		"empty":                {Size: mib, Parts: []gpt.Part{{Start: mib / 2}}},
		"overlap":              {Size: mib, Parts: []gpt.Part{{Start: 65536, Size: 65536}, {Start: 65536 + 512, Size: 512}}},
		"overflow":             {Size: mib, Parts: []gpt.Part{{Start: 65536, Size: 1<<63 - 512}}},
		"long name":            {Size: mib, Parts: []gpt.Part{{Name: strings.Repeat("x", 37), Start: 65536, Size: 512}}},
	}
	for name, table := range tests {
		t.Run(name, func(t *testing.T) {
			m := make(medium, mib)
			if err := table.Write(m); err == nil {
				t.Error("Write = nil; want an error")
			}
			if !bytes.Equal(m, make(medium, mib)) {
				t.Error("something was written")
			}
		})
	}
}
