// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/mount/loop"
	"github.com/updaterd/updaterd/updaterd/internal/update"
	"golang.org/x/sys/unix"
)

func openFile(t *testing.T, path string) *slotFile {
	t.Helper()
	d, err := openSlotFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// Whatever way the file system allows: any range reads back what was written.
func TestSlotFileReadsAnyRange(t *testing.T) {
	const size = 3*bounce + 12_345
	want := noise(1, size)
	path := write(t, filepath.Join(t.TempDir(), "slot"), make([]byte, size))
	for _, direct := range []bool{true, false} {
		d := openFile(t, path)
		if !direct && d.direct != nil {
			d.direct.Close()
			d.direct = nil
		}
		if n, err := d.WriteAt(want, 0); n != size || err != nil {
			t.Fatal(n, err)
		}
		for _, c := range []struct{ off, n int }{
			{0, size}, {0, 1}, {1, 4096}, {4095, 2}, {4096, 4096}, {size - 1, 1}, {size - 5000, 5000}, {bounce - 1, bounce + 2}, {777, 0},
		} {
			got := make([]byte, c.n)
			if n, err := d.ReadAt(got, int64(c.off)); n != c.n || err != nil || !bytes.Equal(got, want[c.off:c.off+c.n]) {
				t.Errorf("direct %v: ReadAt(%d bytes, %d) = %d, %v, or other bytes", direct, c.n, c.off, n, err)
			}
		}
		if _, err := d.ReadAt(make([]byte, 2), size-1); err == nil {
			t.Error("ReadAt beyond the end succeeded")
		}
		if _, err := d.WriteAt(make([]byte, 2), size-1); err == nil {
			t.Error("WriteAt beyond the end succeeded")
		}
	}
}

// Without direct reads the page cache is emptied before reading, and that is
// checked, not hoped for.
func TestDropEmptiesThePageCache(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "slot"), noise(1, 1<<20))
	d := openFile(t, path)
	if d.ram {
		// There is no medium behind this file system, so there is nothing to drop:
		// the test below would prove nothing, but neither can a medium be wrong.
		if err := d.drop(0, 1<<20); err != nil {
			t.Fatal(err)
		}
		return
	}
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if warm, err := resident(int(d.f.Fd()), 0, 1<<20); err != nil || !warm {
		t.Fatalf("page cache is not warm after reading the file: %v", err)
	}
	if err := d.drop(0, 1<<20); err != nil {
		t.Fatal(err)
	}
	if warm, err := resident(int(d.f.Fd()), 0, 1<<20); err != nil || warm {
		t.Fatalf("page cache is warm after drop (%v)", err)
	}
	// A page that somebody keeps cannot be dropped; then there is no reading back.
	m, err := unix.Mmap(int(d.f.Fd()), 0, 8192, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	if err := d.drop(0, 1<<20); err == nil || !strings.Contains(err.Error(), "page cache") {
		t.Errorf("drop of a page in use = %v, want an error", err)
	}
}

func TestOpenDeviceRefuses(t *testing.T) {
	for _, path := range []string{"/dev/null", t.TempDir(), "/nonexistent"} {
		if d, err := openDevice(path, true); err == nil {
			d.Close()
			t.Errorf("openDevice(%s) succeeded", path)
		}
	}
}

// hooked calls after with the number of each Sync that is over.
type hooked struct {
	device
	syncs int
	after func(n int)
}

func (h *hooked) Sync() error {
	err := h.device.Sync()
	h.syncs++
	h.after(h.syncs)
	return err
}

// loopDevice puts a file behind a block device.
func loopDevice(t *testing.T, path string) string {
	t.Helper()
	name, err := loop.FindDevice()
	if err != nil {
		t.Fatal(err)
	}
	if err := loop.SetFile(name, path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := loop.ClearFile(name); err != nil {
			t.Error(err)
		}
	})
	return name
}

// The medium is corrupted under a warm page cache, after all was written and
// flushed. It needs a real block device, so root; what an ordinary user can
// test of it is above.
func TestReadBackGoesPastTheCache(t *testing.T) {
	if _, err := os.Stat("/dev/loop-control"); os.Geteuid() != 0 || err != nil {
		t.Skip("needs root and loop devices; TestDropEmptiesThePageCache and TestBadMedium run without")
	}
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	for _, mode := range modes {
		for _, always := range []bool{false, true} {
			r := newRig(t, data, v1, noise(3, slotSize))
			backing := r.o.Slots["rootfs"]["b"]
			name := loopDevice(t, backing)
			r.o.Slots["rootfs"]["b"] = name
			r.restart()
			warm := must(os.Open(name)) // keeps the device's page cache
			defer warm.Close()
			corrupted := 0
			r.engine.open = func(path string, write bool) (device, error) {
				d, err := openDevice(path, write)
				return &hooked{device: d, after: func(n int) {
					if n == 2 || n > 2 && always {
						corrupted++
						spoil(t, backing, 6*chunkSize+1000)
						cached := make([]byte, 1)
						if must(warm.ReadAt(cached, 6*chunkSize+1000)); cached[0] != v2[6*chunkSize+1000] {
							t.Error("the page cache is not warm; the test proves nothing")
						}
					}
				}}, err
			}
			stats, err := r.run(t.Context(), r.inspect(mode), quiet)
			if corrupted == 0 {
				t.Fatal("nothing was corrupted")
			}
			if always {
				wantName(t, err, update.NameMedium)
				if !strings.Contains(err.Error(), "rootfs.b") || !strings.Contains(err.Error(), "393216") {
					t.Errorf("error %q does not name slot and offset", err)
				}
				continue
			}
			if err != nil || stats.Written != int64(len(v2))+chunkSize {
				t.Fatalf("%s: Install = %+v, %v; want one chunk written twice", mode, stats, err)
			}
			if got := must(os.ReadFile(backing)); !bytes.Equal(got[:len(v2)], v2) {
				t.Error("the medium does not hold the image")
			}
			// A slot that is in use is left alone.
			held, err := os.OpenFile(name, os.O_RDONLY|unix.O_EXCL, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.engine.Inspect(t.Context(), r.url(), "b", update.InstallOptions{})
			held.Close()
			wantName(t, err, update.NameBadState)
		}
	}
}
