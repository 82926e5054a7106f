// SPDX-License-Identifier: Apache-2.0

package install

import (
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// exclusive is a device that, like a block device, is open for writing once at a time.
type exclusive struct {
	device
	holders *atomic.Int32
}

func (d exclusive) Close() error {
	d.holders.Add(-1)
	return d.device.Close()
}

// Whoever may inspect must not make an installation, or another inspection,
// find the device in use.
func TestInspectDoesNotHoldTheDeviceAgainstInstall(t *testing.T) {
	v1, v2 := systems()
	r := newRig(t, build(t, nil, "rootfs", v1, v2), v1, nil)
	rel := r.inspect(ModeStream)
	var holders atomic.Int32
	r.engine.open = func(path string, write bool) (device, error) {
		d, err := openDevice(path, write)
		if err != nil || !write {
			return d, err
		}
		if holders.Add(1) > 1 {
			holders.Add(-1)
			d.Close()
			return nil, syscall.EBUSY
		}
		time.Sleep(time.Millisecond) // as opening takes on a device
		return exclusive{d, &holders}, nil
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := r.engine.Inspect(t.Context(), r.url(), "b", update.InstallOptions{}); err != nil {
					t.Errorf("Inspect = %v", err)
					return
				}
			}
		})
	}
	for range 5 {
		if _, err := r.run(t.Context(), rel, quiet); err != nil {
			t.Errorf("Install = %v", err)
			break
		}
	}
	close(stop)
	wg.Wait()
}

// What is stored completely needs no room any more.
func TestReopenOfStoredReleaseOnFullPartition(t *testing.T) {
	v1, v2 := systems()
	r := newRig(t, build(t, nil, "rootfs", v1, v2), v1, nil)
	rel := r.inspect(ModeStore)
	if err := r.engine.Download(t.Context(), rel, quiet); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.engine.store.reserve = 1 << 60 // more than is free
	if _, err := r.engine.Reopen(t.Context(), rel.Ref, rel.Digest, "b", update.InstallOptions{}); err != nil {
		t.Fatal(err)
	}
}

// An int has 32 bits on many devices.
func TestProgressOfLargeIntactSlot(t *testing.T) {
	const size = 3 << 30
	var last update.Progress
	w := &work{p: new(plan), total: size, report: func(p update.Progress) { last = p }}
	s := &slot{image: &image{Image: &bundle.Image{Size: size}}, intact: true}
	if err := w.readBack(t.Context(), s); err != nil || last.Done != size {
		t.Errorf("readBack = %v, %d bytes done; want %d", err, last.Done, int64(size))
	}
}
