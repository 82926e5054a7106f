// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/delta"
	"github.com/updaterd/updaterd/bundle/seal"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/fetch"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

const (
	// hugeChunk is a chunk of most of the large images.
	hugeChunk = 1 << 20
	// residentLimit is what an install may take, the program itself included.
	residentLimit = 32 << 20
)

// A hugeImage is mostly zeros: only some of its chunks are noise, with a seed.
// Those with an even seed are also in the source, at the chunk with the number of
// the seed. Its sizes are beyond 32 bits, and different ones.
type hugeImage struct {
	chunk, source, target int64
	noise                 map[int]uint64
}

var (
	// huge ends behind its source.
	huge = hugeImage{hugeChunk, 4<<30 + 300<<20 + 77, 5<<30 - 1234,
		map[int]uint64{0: 2, 1: 3, 700: 4, 2047: 5, 4095: 6, 4096: 7, 4097: 8, 4500: 10, 5119: 11}}
	// largest has as many chunks as there may be.
	largest = hugeImage{256 << 10, 16<<30 + 77, 16<<30 - 1234,
		map[int]uint64{0: 2, 1: 3, 8191: 4, 16384: 5, 65534: 6, 65535: 7}}
)

// content is chunk i, of which the last one is short.
func (h hugeImage) content(i int) []byte {
	b := make([]byte, min(h.chunk, h.target-int64(i)*h.chunk))
	if seed, ok := h.noise[i]; ok {
		copy(b, noise(seed, int(h.chunk)))
		b[77] ^= 1 // so that it is not just a copy
	}
	return b
}

// build makes the bundle by hand: a builder reads 15 GiB for it.
func (h hugeImage) build(t *testing.T, path string) {
	t.Helper()
	n := int((h.target + h.chunk - 1) / h.chunk)
	source := make([]byte, 12*h.chunk)
	for _, seed := range h.noise {
		if seed%2 == 0 {
			copy(source[int64(seed)*h.chunk:], noise(seed, int(h.chunk)))
		}
	}
	index := must(delta.NewIndex(bytes.NewReader(source), int64(len(source)), nil))
	defer index.Close()
	zeros := bundle.Sum(make([]byte, h.chunk))
	digests := make([]byte, n*bundle.DigestSize)
	tables := [2][]byte{make([]byte, n*bundle.EntrySize), make([]byte, n*bundle.EntrySize)}
	var data [2]bytes.Buffer
	for i := range bundle.Order(n) {
		d, enc := zeros, [2][]byte{}
		kinds := [2]bundle.Encoding{bundle.Zero, bundle.Zero}
		if _, ok := h.noise[i]; ok || i == n-1 {
			b := h.content(i)
			d = bundle.Sum(b)
			kinds, enc = [2]bundle.Encoding{bundle.Raw, bundle.Raw}, [2][]byte{b, b}
			if h.noise[i]%2 == 0 && ok {
				kinds[0], enc[0] = bundle.Patch, must(index.Patch(b, int64(i)*h.chunk))
			}
		}
		copy(digests[i*bundle.DigestSize:], d[:])
		for k := range tables {
			e := tables[k][i*bundle.EntrySize:]
			binary.LittleEndian.PutUint32(e, uint32(kinds[k])<<24|uint32(len(enc[k])))
			sum := bundle.Sum(enc[k])
			copy(e[4:], sum[:])
			data[k].Write(enc[k])
		}
	}
	img := bundle.Image{Class: "rootfs", Size: h.target, Digest: bundle.Sum([]byte("not computed")), BuildID: "new-build", ChunkSize: h.chunk}
	img.Recipes = []bundle.Recipe{
		{Kind: bundle.KindDelta, Source: &bundle.Source{Digest: bundle.Sum(source), Size: h.source, BuildID: "old-build"}, Prefix: bundle.DefaultPrefix},
		{Kind: bundle.KindFull, Prefix: bundle.DefaultPrefix},
	}
	signByHand(t, path, img, digests, tables[:], [][]byte{data[0].Bytes(), data[1].Bytes()}, 0, nil)
	for slot, size := range map[bootctl.Slot]int64{"a": h.source, "b": h.target} {
		f := must(os.Create(filepath.Join(filepath.Dir(path), string(slot))))
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if slot == "a" {
			for _, seed := range h.noise {
				if seed%2 == 0 {
					must(f.WriteAt(noise(seed, int(h.chunk)), int64(seed)*h.chunk))
				}
			}
		}
		f.Close()
	}
}

// installed checks what a slot has of the image.
func (h hugeImage) installed(t *testing.T, slot string) {
	t.Helper()
	f := must(os.Open(slot))
	defer f.Close()
	for i := range h.noise {
		want := h.content(i)
		got := make([]byte, len(want))
		if must(io.ReadFull(io.NewSectionReader(f, int64(i)*h.chunk, h.target), got)); !bytes.Equal(got, want) {
			t.Errorf("chunk %d of %s is not what was installed", i, slot)
		}
	}
}

// signByHand makes a bundle of an image whose recipes have these tables and data. With
// a key the tables are sealed here, and the data were, for us.
// The data of the last recipe is followed by a hole.
func signByHand(t *testing.T, path string, img bundle.Image, digests []byte, tables, data [][]byte, hole int64, key *seal.Key) {
	t.Helper()
	next := int64(0)
	place := func(n int) bundle.Extent {
		next += int64(n)
		return bundle.Extent{Offset: next - int64(n), Length: int64(n)}
	}
	var parts [][]byte
	table := func(b []byte) bundle.Table {
		if key != nil {
			b = seal.Seal(key, nil, b, next)
		}
		parts = append(parts, b)
		return bundle.Table{Extent: place(len(b)), Digest: bundle.Sum(b)}
	}
	img.Chunks = table(digests)
	for k, b := range tables {
		img.Recipes[k].Table = table(b)
	}
	for k, b := range data {
		img.Recipes[k].Data = place(len(b))
		parts = append(parts, b)
	}
	img.Recipes[len(img.Recipes)-1].Data.Length += hole
	m := bundle.Manifest{Format: bundle.Format, Compatible: []string{"board-1"}, Version: "2.0", Sequence: 2,
		Created: time.Unix(1, 0).UTC(), Images: []bundle.Image{img}}
	if key != nil {
		to := ourIdentity().Recipient()
		m.Requires = []string{bundle.RequiresEncryption}
		m.Encryption = &bundle.Encryption{Scheme: seal.Scheme, Recipients: []bundle.Wrapped{{ID: to.ID(), Key: must(seal.Wrap(key, to))}}}
	}
	envelope := must(sign.Seal(bundle.PayloadType, must(m.Marshal()), newKey().signer))
	out := []byte{0x89, 'U', 'P', 'B', '\r', '\n', 0x1a, '\n'}
	out = binary.LittleEndian.AppendUint32(out, bundle.HeaderVersion)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(envelope)))
	write(t, path, append(append(out, envelope...), bytes.Join(parts, nil)...))
	if err := os.Truncate(path, int64(len(out)+len(envelope))+next+hole); err != nil {
		t.Fatal(err)
	}
}

// A full device is one that, until it is written, holds something else than
// zeros everywhere. It does not need the space, because it writes no zeros.
type full struct {
	device
	written []uint64 // a bit for each block: it must not take the memory that is measured
}

func (d *full) has(block int64) bool { return d.written[block/64]>>(block%64)&1 != 0 }

// old is what a block of a full device holds.
var old = bytes.Repeat([]byte{0xa5}, blockSize)

func (d *full) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.device.ReadAt(p, off)
	for i := 0; i < n; {
		end := min(n, i+blockSize-int((off+int64(i))%blockSize))
		if !d.has((off + int64(i)) / blockSize) {
			copy(p[i:end], old)
		}
		i = end
	}
	return n, err
}

func (d *full) WriteAt(p []byte, off int64) (int, error) {
	for at := off / blockSize; at*blockSize < off+int64(len(p)); at++ {
		d.written[at/64] |= 1 << (at % 64)
	}
	if p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1]) {
		return len(p), nil
	}
	return d.device.WriteAt(p, off)
}

// TestResidentChild is the device of the tests of resident memory: a process of its own,
// so that what is measured is the engine.
func TestResidentChild(t *testing.T) {
	dir, mode := os.Getenv("UPDATERD_TEST_RESIDENT"), os.Getenv("UPDATERD_TEST_MODE")
	if dir == "" {
		t.Skip("part of TestResidentMemory and TestResidentFrames")
	}
	client := must(fetch.New(fetch.Options{}))
	defer client.Close()
	key := must(sign.ParsePublicKey(must(os.ReadFile(filepath.Join(dir, "key.pub")))))
	e := must(New(Options{
		Compatible: "board-1", BuildID: "old-build", Dir: filepath.Join(dir, "downloads"), StoreBudget: 64 << 20,
		Slots:    map[string]map[bootctl.Slot]string{"rootfs": {"a": filepath.Join(dir, "a"), "b": filepath.Join(dir, "b")}},
		Booted:   func() (bootctl.Slot, error) { return "a", nil },
		Policy:   func() (*sign.Policy, error) { return must(sign.NewKeyring(key)).Policy(1), nil },
		Identity: func() (*seal.Identity, error) { return seal.LoadIdentity(filepath.Join(dir, "identity")) },
		Open:     func(ref string) (Remote, error) { return client.Open(ref) },
	}))
	var written []uint64 // outlives its device
	e.open = func(path string, write bool) (device, error) {
		d, err := openDevice(path, write)
		switch device := os.Getenv("UPDATERD_TEST_DEVICE"); {
		case err != nil:
			return nil, err
		case device == "thin":
			return thin{d}, nil
		case device == "full" && path == e.o.Slots["rootfs"]["b"]:
			if len(written) == 0 {
				written = make([]uint64, d.Size()/blockSize/64+1)
			}
			return &full{d, written}, nil
		}
		return d, nil
	}
	r := &rig{t: t, engine: e}
	rel := must(e.Inspect(t.Context(), filepath.Join(dir, "f.upb"), "b", update.InstallOptions{Mode: mode}))
	rel.Job = 1
	stats, err := r.run(t.Context(), rel, quiet)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("child: resident=%d %s written=%d unchanged=%d reused=%d\n", residentPeak(), rel.Images[0].Recipe, stats.Written, stats.Unchanged, stats.Reused)
}

// residentPeak is the most memory that this process ever had, in bytes.
func residentPeak() (n int64) {
	s := bufio.NewScanner(must(os.Open("/proc/self/status")))
	for s.Scan() {
		if rest, ok := strings.CutPrefix(s.Text(), "VmHWM:"); ok {
			fmt.Sscan(rest, &n)
		}
	}
	return n << 10
}

// An installed is what a child says of itself.
type installed struct {
	recipe                               string
	resident, written, unchanged, reused int64
}

// runChild installs in a process of its own, and checks what it takes.
func runChild(t *testing.T, dir, mode, device string, group *memoryGroup) (got installed) {
	t.Helper()
	begin := time.Now()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestResidentChild$", "-test.count=1")
	// The device's program has no memory profile in it, whose table takes 1.4 MiB.
	cmd.Env = append(os.Environ(), "UPDATERD_TEST_RESIDENT="+dir, "UPDATERD_TEST_MODE="+mode, "UPDATERD_TEST_DEVICE="+device, fmt.Sprint("GOMEMLIMIT=", MemoryLimit), "GODEBUG=memprofilerate=0")
	if group != nil {
		group.admit(cmd)
	}
	out, err := cmd.CombinedOutput()
	_, line, ok := strings.Cut(string(out), "child: ")
	if err != nil || !ok {
		t.Fatalf("%s: %v\n%s", mode, err, out)
	}
	must(fmt.Sscanf(line, "resident=%d %s written=%d unchanged=%d reused=%d", &got.resident, &got.recipe, &got.written, &got.unchanged, &got.reused))
	t.Logf("%s: %.1f MiB resident, %d MiB written, in %v", mode, float64(got.resident)/(1<<20), got.written>>20, time.Since(begin).Round(time.Second/10))
	if got.resident > residentLimit {
		t.Errorf("%s: %d bytes resident, want at most %d", mode, got.resident, residentLimit)
	}
	if group != nil {
		used := group.used()
		t.Logf("%s: at most %.1f MiB charged to the control group, limit %d", mode, float64(used)/(1<<20), groupLimit>>20)
		if used < got.resident/2 {
			t.Errorf("%s: the control group was charged %d bytes only: the install was not in it", mode, used)
		}
	}
	return got
}

// measured leaves out a test of memory where it would take too long, for what it
// does, or could not be right.
func measured(t *testing.T, does string) {
	if testing.Short() {
		t.Skip(does)
	}
	if raceDetector {
		t.Skip("the race detector takes memory of its own")
	}
	t.Parallel()
}

// An install of 5 GiB, from a source and a delta, stays within 32 MiB, whether
// hardly a block is to be written or every one. It also comes to its end in a
// control group that has no more than 48 MiB for it and its page cache.
func TestResidentMemory(t *testing.T) {
	measured(t, "reads 20 GiB of holes")
	dir := t.TempDir()
	huge.build(t, filepath.Join(dir, "f.upb"))
	write(t, filepath.Join(dir, "key.pub"), newKey().public)
	group, err := newMemoryGroup(t)
	if err != nil {
		t.Logf("not held to %d MiB with the page cache, because there is no control group for it: %v", groupLimit>>20, err)
	}
	for _, mode := range modes {
		if err := os.RemoveAll(filepath.Join(dir, "downloads")); err != nil {
			t.Fatal(err)
		}
		for _, size := range []int64{0, huge.target} {
			if err := os.Truncate(filepath.Join(dir, "b"), size); err != nil {
				t.Fatal(err)
			}
		}
		device := map[string]string{ModeStream: "full"}[mode]
		got := runChild(t, dir, mode, device, group)
		if got.recipe != "delta" || got.written+got.unchanged != huge.target || got.reused == 0 || (device == "full") != (got.unchanged == 0) {
			t.Errorf("%s: %+v", mode, got)
		}
		huge.installed(t, filepath.Join(dir, "b"))
	}
}

// An install of as many chunks as there may be, all of which are to be written,
// stays within 32 MiB, too: what is kept of each is little, and of its blocks
// nothing beyond a bound.
func TestResidentLargest(t *testing.T) {
	measured(t, "reads 16 GiB of holes")
	dir := t.TempDir()
	largest.build(t, filepath.Join(dir, "f.upb"))
	write(t, filepath.Join(dir, "key.pub"), newKey().public)
	got := runChild(t, dir, ModeStream, "full", nil)
	if got.recipe != "delta" || got.written != largest.target || got.unchanged != 0 || got.reused == 0 {
		t.Errorf("%+v", got)
	}
	largest.installed(t, filepath.Join(dir, "b"))
}
