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

// checksums has one checksum for each block of b. Two blocks with one checksum are
// found by the read-back, which compares digests, and then the whole chunk is
// written.
func checksums(b []byte) []uint32 {
	sums := make([]uint32, 0, blockCount(len(b)))
	for off := 0; off < len(b); off += blockSize {
		sums = append(sums, crc32.Checksum(b[off:min(off+blockSize, len(b))], castagnoli))
	}
	return sums
}

// maxSums bounds the checksums that are kept from the one time that slots are read
// before they are written: 1 MiB of them, for 1 GiB to be written. Chunks beyond
// that are read once more.
const maxSums = 1 << 18

// keep keeps the checksums of chunk i, or that they can be had.
func (w *work) keep(s *slot, i int, was []uint32) {
	if w.kept+len(was) <= w.p.e.maxSums {
		w.kept += len(was)
		s.was[i] = was
		return
	}
	if s.unread == nil {
		s.unread, s.piece = make([]bool, s.ChunkCount()), aligned(pieceSize)
	}
	s.unread[i] = true
}

// pieceSize is how much is read at once of a chunk that is read once more.
const pieceSize = 64 << 10

// recall has the checksums of chunk i for once: what is written again, is written
// in full. It is nil if they are not known.
func (s *slot) recall(i int) (was []uint32) {
	if s.unread == nil || !s.unread[i] {
		was = s.was[i]
		delete(s.was, i)
		return was
	}
	s.unread[i] = false
	n := s.ChunkLength(i)
	for at := 0; at < n; at += pieceSize {
		b := s.piece[:min(pieceSize, n-at)]
		if _, err := s.dev.ReadAt(b, s.offset(i)+int64(at)); err != nil {
			return nil
		}
		was = append(was, checksums(b)...)
	}
	return was
}

// blockCount is the number of blocks that n bytes take.
func blockCount(n int) int { return (n + blockSize - 1) / blockSize }

// put writes chunk i, which was verified, but for blocks that were found in
// place. Of chunk 0 it keeps back the first block.
func (s *slot) put(i int, b []byte) (stats update.InstallStats, err error) {
	off, was := s.offset(i), s.recall(i)
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
