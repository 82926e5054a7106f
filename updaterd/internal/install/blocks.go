// SPDX-License-Identifier: Apache-2.0

package install

import (
	"hash/crc32"

	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// blockSize is what a chunk is written in: a block that is in place already is
// left alone, because flash wears with every write.
const blockSize = 4096

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksums has one checksum for each block of b. They are all that is kept of
// a slot from the one time that it is read before it is written: 5 MiB for a
// slot of 5 GiB. Two blocks with one checksum are found by the read-back, which
// compares digests, and then the whole chunk is written.
func checksums(b []byte) []uint32 {
	sums := make([]uint32, 0, blockCount(len(b)))
	for off := 0; off < len(b); off += blockSize {
		sums = append(sums, crc32.Checksum(b[off:min(off+blockSize, len(b))], castagnoli))
	}
	return sums
}

// blockCount is the number of blocks that n bytes take.
func blockCount(n int) int { return (n + blockSize - 1) / blockSize }

// put writes chunk i, which was verified, but for blocks that were found in
// place. Of chunk 0 it keeps back the first block.
func (s *slot) put(i int, b []byte) (stats update.InstallStats, err error) {
	off, was := s.offset(i), s.was[i]
	delete(s.was, i) // what is written again, is written in full
	if i == 0 {
		s.hold(b)
		n := s.first()
		b, off = b[n:], int64(n)
		was = was[min(1, len(was)):]
	}
	for from, to := 0, 0; from < len(b); from = to {
		same := inPlace(b[from:], was, from/blockSize)
		for to = from; to < len(b) && inPlace(b[to:], was, to/blockSize) == same; {
			to = min(to+blockSize, len(b))
		}
		if same {
			stats.Unchanged += int64(to - from)
			continue
		}
		if _, err := s.dev.WriteAt(b[from:to], off+int64(from)); err != nil {
			return stats, medium("write", off+int64(from), err)
		}
		s.dirty += int64(to - from)
		stats.Written += int64(to - from)
		stats.Blocks += int64(blockCount(to - from))
	}
	return stats, nil
}

// inPlace reports whether the block that b begins with is number k of those
// that were read.
func inPlace(b []byte, was []uint32, k int) bool {
	return k < len(was) && crc32.Checksum(b[:min(blockSize, len(b))], castagnoli) == was[k]
}
