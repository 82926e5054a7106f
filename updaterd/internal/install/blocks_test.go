// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"syscall"
	"testing"

	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// A worn device counts how often each block is written, and the bytes read.
type worn struct {
	device
	writes map[int64]int
	read   int64
	// fails, if set, says which reads do.
	fails func(off int64) bool
}

func (d *worn) WriteAt(p []byte, off int64) (int, error) {
	for at := off / blockSize; at*blockSize < off+int64(len(p)); at++ {
		d.writes[at]++
	}
	return d.device.WriteAt(p, off)
}

func (d *worn) ReadAt(p []byte, off int64) (int, error) {
	d.read += int64(len(p))
	if d.fails != nil && d.fails(off) {
		return 0, syscall.EIO
	}
	return d.device.ReadAt(p, off)
}

// onWorn makes the rig's target slot a worn device.
func (r *rig) onWorn() *worn {
	d := &worn{writes: make(map[int64]int)}
	r.engine.open = func(path string, write bool) (device, error) {
		dev, err := openDevice(path, write)
		if err != nil || !write || path != r.o.Slots["rootfs"]["b"] {
			return dev, err
		}
		d.device = dev
		return d, nil
	}
	return d
}

// Exactly the blocks that differ are written, once each; the first one is
// cleared before and written last. The slot is read as often as without that, as
// long as the checksums of what is to be written are few enough to be kept.
func TestOnlyBlocksThatDifferAreWritten(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	for name, before := range map[string][]byte{
		"old system": v1, "noise": noise(3, slotSize), "nothing": nil, "same": v2,
		"all but the last byte": append(bytes.Clone(v2[:len(v2)-1]), 'x'),
		"all but byte 0":        append([]byte{v2[0] ^ 1}, v2[1:]...),
	} {
		for kept, mode := range map[int]string{maxSums: ModeStore, maxSums - 1: ModeStream, 40: ModeStore, 0: ModeStream} {
			t.Run(fmt.Sprint(name, " ", mode, " ", kept), func(t *testing.T) {
				r := newRig(t, data, v1, before)
				r.engine.maxSums = kept
				d := r.onWorn()
				was := r.target()
				want := make(map[int64]int)
				var bytesWanted int64
				for off := 0; off < len(v2); off += blockSize {
					end := min(off+blockSize, len(v2))
					if !bytes.Equal(was[off:end], v2[off:end]) {
						want[int64(off/blockSize)] = 1
						bytesWanted += int64(end - off)
					}
				}
				if len(want) > 0 {
					if want[0] == 0 {
						bytesWanted += firstBlock
					}
					if want[0] = 2; bytes.Equal(was[:firstBlock], make([]byte, firstBlock)) {
						want[0] = 1 // it is clear
					}
				}
				rel := r.inspect(mode)
				stats, err := r.run(t.Context(), rel, quiet)
				if err != nil {
					t.Fatal(err)
				}
				r.holds(v2, before)
				if stats.Written != bytesWanted {
					t.Errorf("%d bytes written, want %d", stats.Written, bytesWanted)
				}
				if !maps.Equal(d.writes, want) {
					t.Errorf("blocks written %v, want %v", sorted(d.writes), sorted(want))
				}
				// Once to see what is there, once to read back, and the first block
				// before it is cleared and after it is written; and what is to be
				// written once more, but for what checksums were kept of.
				most := 2*int64(len(v2)) + firstBlock + chunkSize
				if again := int64(len(chunksOf(want))-kept*blockSize/chunkSize) * chunkSize; again > 0 {
					most += again
				}
				if d.read > most {
					t.Errorf("%d bytes read for an image of %d, want at most %d", d.read, len(v2), most)
				}
			})
		}
	}
}

// chunksOf are the numbers of the chunks that blocks lie in.
func chunksOf(blocks map[int64]int) map[int64]bool {
	chunks := make(map[int64]bool)
	for at := range blocks {
		chunks[at*blockSize/chunkSize] = true
	}
	return chunks
}

// A chunk that cannot be read when its blocks are to be compared is written in full.
func TestUnreadableBeforeItIsWritten(t *testing.T) {
	v1, v2 := systems()
	before := bytes.Clone(v2)
	before[5*chunkSize+9*blockSize] ^= 1
	before[6*chunkSize+9*blockSize] ^= 1
	r := newRig(t, build(t, nil, "rootfs", v1, v2), v1, before)
	r.engine.maxSums = 0
	d, reads := r.onWorn(), 0
	d.fails = func(off int64) bool {
		if off/chunkSize == 6 {
			reads++
		}
		return off/chunkSize == 6 && reads == 2
	}
	_, stats := r.install(ModeStream)
	r.holds(v2, before)
	if want := int64(chunkSize + blockSize + firstBlock); stats.Written != want || reads < 3 {
		t.Errorf("%d bytes written after %d reads of the chunk, want %d", stats.Written, reads, want)
	}
}

func sorted(m map[int64]int) [][2]int64 {
	var out [][2]int64
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, [2]int64{k, int64(m[k])})
	}
	return out
}

func TestStatsSayWhatWasWritten(t *testing.T) {
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	for _, before := range [][]byte{v1, v2, nil, noise(3, slotSize)} {
		r := newRig(t, data, v1, before)
		d := r.onWorn()
		cleared := !bytes.Equal(r.target()[:firstBlock], make([]byte, firstBlock))
		_, stats := r.install(ModeStore)
		n := int64(0)
		for _, k := range d.writes {
			n += int64(k)
		}
		if cleared && n > 0 {
			n--
		}
		if stats.Blocks != n || stats.Written+stats.Unchanged != int64(len(v2)) || stats.Written > n*blockSize || stats.Written < (n-1)*blockSize {
			t.Errorf("%+v for %d blocks of an image of %d bytes", stats, n, len(v2))
		}
		if patched := stats.Reused; (patched > 0) != (stats.Written > 0) || patched > int64(len(v2)) {
			t.Errorf("%+v: %d bytes reused", stats, patched)
		}
	}
}

// Another block with the same checksum passes for the one that is wanted, until
// the read-back.
func TestChecksumOfAnotherBlock(t *testing.T) {
	v1, v2 := systems()
	other := bytes.Clone(v2)
	// A multiple of the polynomial, in the order of the bits, changes no checksum.
	at := 6*chunkSize + 3*blockSize + 100
	word := binary.LittleEndian.Uint64(other[at:]) ^ (1 | uint64(crc32.Castagnoli)<<1)
	binary.LittleEndian.PutUint64(other[at:], word)
	if block := at &^ (blockSize - 1); !slices.Equal(checksums(other[block:block+blockSize]), checksums(v2[block:block+blockSize])) {
		t.Fatal("the blocks have different checksums; the test proves nothing")
	}
	other[6*chunkSize] ^= 1 // another block differs as well
	for _, mode := range modes {
		r := newRig(t, build(t, nil, "rootfs", nil, v2), v1, other)
		_, stats := r.install(mode)
		r.holds(v2, nil)
		if want := int64(blockSize + chunkSize + firstBlock); stats.Written != want {
			t.Errorf("%d bytes written, want a block, the whole chunk and the first block: %d", stats.Written, want)
		}
	}
}

// What a job did is added up over restarts, and what it wrote itself is not
// called unchanged afterwards.
func TestStatsOverRestarts(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	_, _, _, entries := recipe(t, data, "delta")
	for _, mode := range modes {
		r := newRig(t, data, v1, spotted(v2, 1, 2, 3, 4, 5, 6, 7, 8))
		rel := r.inspect(mode)
		rel.Job = 3
		var stats update.InstallStats
		for try := 1; ; try++ {
			ctx, cancel := cancelAfter(t, 2)
			var err error
			stats, err = r.run(ctx, rel, func(p update.Progress) {
				if p.Stage == "install" {
					cancel()
				}
			})
			if err == nil {
				if try < 4 {
					t.Fatalf("%d tries; the test proves nothing", try)
				}
				break
			}
			r.restart()
			if rel, err = r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{}); err != nil {
				t.Fatal(err)
			}
			rel.Job = 3
		}
		r.holds(v2, nil)
		want := update.InstallStats{
			Fetched: r.server.total(), Written: 8*chunkSize + firstBlock, Blocks: 8*chunkSize/blockSize + 1,
			Unchanged: int64(len(v2)) - 8*chunkSize - firstBlock, Reused: stats.Reused,
		}
		if mode == ModeStream { // what was on its way when the kill came was served, and not fetched
			needed := rel.Download.Minimum
			for i := 1; i <= 8; i++ {
				needed += int64(entries[i].Length)
			}
			if stats.Fetched < needed || stats.Fetched > want.Fetched {
				t.Errorf("%d bytes fetched, want %d to %d", stats.Fetched, needed, want.Fetched)
			}
			want.Fetched = stats.Fetched
		}
		if stats != want {
			t.Errorf("%s: %+v, want %+v", mode, stats, want)
		}
		// Another job begins anew.
		rel = r.inspect(mode)
		rel.Job = 4
		if stats, err := r.run(t.Context(), rel, quiet); err != nil || stats.Written != 0 || stats.Fetched > 5000 {
			t.Errorf("%s: next job: %+v, %v", mode, stats, err)
		}
	}
}
