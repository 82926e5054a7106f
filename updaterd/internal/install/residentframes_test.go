// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/blocks"
	"github.com/updaterd/updaterd/bundle/seal"
)

const (
	// manyTarget is as many frames as a blocks recipe may have.
	manyTarget = bundle.MaxFrames * bundle.MinFrame
	// seedSize is what a block of it begins with; the rest is zeros.
	seedSize = 8
)

// A thin device has of each block what it begins with: a gigabyte is 2 MiB.
type thin struct{ device }

func (d thin) Size() int64 { return d.device.Size() / seedSize * blockSize }

func (d thin) ReadAt(p []byte, off int64) (int, error) {
	seeds := make([]byte, len(p)/blockSize*seedSize)
	if len(p)%blockSize != 0 || off%blockSize != 0 {
		return 0, fmt.Errorf("%d bytes at %d are not blocks", len(p), off)
	}
	if _, err := d.device.ReadAt(seeds, off/blockSize*seedSize); err != nil {
		return 0, err
	}
	clear(p)
	for k := range len(seeds) / seedSize {
		copy(p[k*blockSize:], seeds[k*seedSize:][:seedSize])
	}
	return len(p), nil
}

func (d thin) WriteAt(p []byte, off int64) (int, error) {
	if len(p)%blockSize != 0 || off%blockSize != 0 {
		return 0, fmt.Errorf("%d bytes at %d are not blocks", len(p), off)
	}
	var seeds []byte
	for at := 0; at < len(p); at += blockSize {
		seeds = append(seeds, p[at:at+seedSize]...)
		if rest := p[at+seedSize : at+blockSize]; rest[0] != 0 || !bytes.Equal(rest[1:], rest[:len(rest)-1]) {
			return 0, fmt.Errorf("block at %d is not thin", off+int64(at))
		}
	}
	if _, err := d.device.WriteAt(seeds, off/blockSize*seedSize); err != nil {
		return 0, err
	}
	return len(p), nil
}

// manySeeds are those of the target. No two frames are the same.
func manySeeds() (b []byte) {
	for k := range uint64(bundle.MaxFrames) {
		b = binary.LittleEndian.AppendUint64(b, k+1)
	}
	return b
}

// buildMany makes the bundle by hand: to a builder a frame of one number is much work.
func buildMany(t *testing.T, path string, key *seal.Key) {
	t.Helper()
	enc := must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1)))
	defer enc.Close()
	n := manyTarget / hugeChunk
	digests := make([]byte, n*bundle.DigestSize)
	frames := make([]byte, bundle.MaxFrames*bundle.FrameEntrySize)
	full := make([]byte, n*bundle.EntrySize)
	overhead := 0
	if key != nil {
		overhead = seal.Overhead
	}
	begin := len(digests) + len(frames) + len(full) + 3*overhead
	var data bytes.Buffer
	seeds, b := manySeeds(), make([]byte, hugeChunk)
	for i := range bundle.Order(n) {
		for at := 0; at < len(b); at += bundle.MinFrame {
			u := (i*hugeChunk + at) / bundle.MinFrame
			frame := b[at : at+bundle.MinFrame]
			copy(frame, seeds[u*seedSize:][:seedSize])
			out := enc.EncodeAll(frame, nil)
			if key != nil {
				out = seal.Seal(key, nil, out, int64(begin+data.Len()))
			}
			sum := bundle.Sum(out)
			e := frames[u*bundle.FrameEntrySize:]
			kind := bundle.Zstd
			if i > 1 {
				kind = bundle.Prefixed // it refers to nothing, but the device cannot know
			}
			binary.LittleEndian.PutUint32(e, uint32(kind)<<24|uint32(len(out)))
			binary.LittleEndian.PutUint64(e[4:], uint64(blocks.Sum(frame)))
			copy(e[12:bundle.FrameEntrySize], sum[:])
			data.Write(out)
		}
		d := bundle.Sum(b)
		copy(digests[i*bundle.DigestSize:], d[:])
		// Raw chunks, which are not there: nobody asks for them.
		binary.LittleEndian.PutUint32(full[i*bundle.EntrySize:], uint32(bundle.Raw)<<24|uint32(hugeChunk+overhead))
		copy(full[i*bundle.EntrySize+4:], d[:])
	}
	img := bundle.Image{Class: "rootfs", Size: manyTarget, Digest: bundle.Sum([]byte("not computed")), BuildID: "new-build", ChunkSize: hugeChunk,
		Recipes: []bundle.Recipe{{Kind: bundle.KindBlocks, Frame: bundle.MinFrame, Prefix: 256 << 10}, {Kind: bundle.KindFull, Prefix: bundle.DefaultPrefix}}}
	signByHand(t, path, img, digests, [][]byte{frames, full}, [][]byte{data.Bytes(), nil}, int64(manyTarget+n*overhead), key)
}

// A blocks recipe of as many frames as there may be fits into 32 MiB, too, with
// the prefixes that the builder gives the recipes. A quarter of the frames is found
// in the booted slot, at another place.
func TestResidentFrames(t *testing.T) { residentFrames(t, nil) }

// Opening what is sealed takes no memory beside that.
func TestResidentSealedFrames(t *testing.T) { residentFrames(t, seal.NewKey()) }

func residentFrames(t *testing.T, key *seal.Key) {
	t.Helper()
	measured(t, "hashes a gigabyte a dozen times")
	dir := t.TempDir()
	buildMany(t, filepath.Join(dir, "f.upb"), key)
	write(t, filepath.Join(dir, "identity"), must(seal.MarshalIdentity(ourIdentity())))
	write(t, filepath.Join(dir, "key.pub"), newKey().public)
	want := manySeeds()
	source := make([]byte, len(want))
	copy(source[len(want)/4+seedSize:], want[len(want)/2:len(want)*3/4])
	write(t, filepath.Join(dir, "a"), source)
	for _, mode := range modes {
		if err := os.RemoveAll(filepath.Join(dir, "downloads")); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "b"), make([]byte, len(want)))
		got := runChild(t, dir, mode, "thin", nil)
		if got.recipe != bundle.KindBlocks || got.written+got.unchanged != manyTarget || got.reused != manyTarget/4 {
			t.Errorf("%s: %+v", mode, got)
		}
		if !bytes.Equal(must(os.ReadFile(filepath.Join(dir, "b"))), want) {
			t.Errorf("%s: the slot is not what was installed", mode)
		}
	}
}
