// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// A single device minds being read by two at once.
type single struct {
	flash
	busy  atomic.Bool
	reads []int64
}

func (d *single) ReadAt(p []byte, off int64) (int, error) {
	if !d.busy.CompareAndSwap(false, true) {
		return 0, errors.New("two reads at once")
	}
	defer d.busy.Store(false)
	d.reads = append(d.reads, off)
	return d.flash.ReadAt(p, off)
}

// lookingAt is a slot of n chunks on a device, and who looks at it.
func lookingAt(dev device, n int) (*work, *slot) {
	img := &bundle.Image{Size: int64(n)*chunkSize - 5, ChunkSize: chunkSize}
	w := &work{content: make([]byte, chunkSize), encoded: make([]byte, chunkSize)}
	return w, &slot{image: &image{Image: img}, dev: dev, window: bundle.NewWindow(img, w.content)}
}

// Chunks are read one at a time and come in order, however long judging takes.
func TestLooksComeInOrder(t *testing.T) {
	t.Parallel()
	const n = 9
	dev := &single{flash: flash{stable: noise(1, n*chunkSize)}}
	dev.fail = func(_ string, off int64) error {
		if off == 4*chunkSize {
			return errPower
		}
		return nil
	}
	w, s := lookingAt(dev, n)
	hold := make(chan struct{}, n)
	judge := func(l *look) {
		if l.i%2 == 1 {
			<-hold // until another chunk was judged
		} else {
			hold <- struct{}{}
		}
	}
	var got []int
	for l := range w.looks(s, bundle.Order(n), judge) {
		got = append(got, l.i)
		if want := dev.stable[s.offset(l.i):][:s.ChunkLength(l.i)]; l.i != 4 && !bytes.Equal(l.b, want) || (l.err != nil) != (l.i == 4) {
			t.Errorf("chunk %d is not what was read (%v)", l.i, l.err)
		}
	}
	want := slices.Collect(bundle.Order(n))
	if !slices.Equal(got, want) {
		t.Errorf("chunks %v, want %v", got, want)
	}
	for k, off := range dev.reads {
		if off != s.offset(want[k]) {
			t.Errorf("read number %d is at %d, want %d", k, off, s.offset(want[k]))
		}
	}
}

// Whoever has seen enough has the device and the memory alone again.
func TestLooksEnd(t *testing.T) {
	t.Parallel()
	const n = 9
	for enough := range n {
		dev := &single{flash: flash{stable: noise(1, n*chunkSize)}}
		w, s := lookingAt(dev, n)
		var judging atomic.Int32
		seen := 0
		for range w.looks(s, upwards(0, n), func(*look) {
			judging.Add(1)
			clear(noise(2, chunkSize)) // takes a while
			judging.Add(-1)
		}) {
			if seen++; seen > enough {
				break
			}
		}
		if judging.Load() != 0 || dev.busy.Load() || len(dev.reads) > enough+1+len(w.buffers(s)) {
			t.Errorf("after %d chunks %d are judged, the device is read: %v, reads %v", seen, judging.Load(), dev.busy.Load(), dev.reads)
		}
	}
}

// A chunk that cannot be written ends the install, although the next one was
// being made; what got through before it is counted, and nothing else.
func TestWriteFailsWhileTheNextIsMade(t *testing.T) {
	t.Parallel()
	v2 := noise(5, 9*chunkSize)
	data := build(t, plain, "rootfs", nil, v2)
	order := slices.Collect(bundle.Order(9))
	for _, mode := range modes {
		for k, bad := range order {
			r := newRig(t, data, nil, nil)
			m := &flash{}
			m.fail = func(op string, off int64) error {
				if op == "write" && off >= firstBlock && off/chunkSize == int64(bad) {
					return errPower
				}
				return nil
			}
			r.onMedium(m)
			rel := r.inspect(mode)
			done := int64(0)
			stats, err := r.run(t.Context(), rel, func(p update.Progress) {
				if p.Stage == "install" {
					done = p.Done
				}
			})
			wantName(t, err, update.NameMedium)
			want := int64(k * chunkSize)
			if !errors.Is(err, errPower) || stats.Written != want || stats.Blocks != want/blockSize || done != want {
				t.Errorf("%s, chunk %d: %v, %+v, progress %d; want %d bytes written", mode, bad, err, stats, done, want)
			}
		}
	}
}
