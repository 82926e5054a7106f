// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/fallbackcopy"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// Slots that are parts of one disk are written, carried over and verified as
// others are, and what is around them stays.
func TestRegions(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	const at1, at2, size = 64 << 10, 320 << 10, 200 << 10
	for name, images := range map[string][]any{
		"image":        {"bootloader", nil, noise(41, 150_000), "rootfs", v1, v2},
		"carried over": {"rootfs", v1, v2},
	} {
		t.Run(name, func(t *testing.T) {
			disk := noise(40, 1<<20)
			r := newRig(t, build(t, nil, images...), v1, nil)
			path := write(t, filepath.Join(t.TempDir(), "disk"), disk)
			a, b := fmt.Sprintf("%s at %d", path, at1), fmt.Sprintf("%s at %d", path, at2)
			r.o.Slots["bootloader"] = map[bootctl.Slot]string{"a": a, "b": b}
			r.o.Regions = map[string]Region{a: {path, at1, size}, b: {path, at2, size}}
			r.restart()
			rel, _ := r.install(ModeStream)
			if err := r.engine.Verify(t.Context(), rel, quiet); err != nil {
				t.Error(err)
			}
			want := bytes.Clone(disk)
			if name == "image" {
				copy(want[at2:], images[2].([]byte))
			} else {
				copy(want[at2:at2+size], disk[at1:])
			}
			if !bytes.Equal(must(os.ReadFile(path)), want) {
				t.Error("the disk holds something else than its old content and the new slot")
			}
		})
	}
	r := newRig(t, build(t, nil, "bootloader", nil, noise(42, size+1), "rootfs", v1, v2), v1, nil)
	path := write(t, filepath.Join(t.TempDir(), "disk"), make([]byte, 1<<20))
	r.o.Slots["bootloader"] = map[bootctl.Slot]string{"a": path + " at 0", "b": path + " at 1"}
	r.o.Regions = map[string]Region{path + " at 0": {path, 0, size}, path + " at 1": {path, at2, size}}
	r.restart()
	_, err := r.engine.Inspect(t.Context(), r.url(), "b", update.InstallOptions{})
	wantName(t, err, update.NameTooLarge)
}

// A slot may have the first part of its device alone. What is behind it is not
// carried over and not written, and a header that is kept stays out of it as well.
func TestRegionOfItsOwnDevice(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	const size = 200 << 10
	r := newRig(t, data, nil, v1) // slot b runs
	r.o.Booted = func() (bootctl.Slot, error) { return "b", nil }
	booted, stale := noise(43, 256<<10), noise(44, 256<<10)
	r.withLoader(stale, booted)
	a, b := r.o.Slots["bootloader"]["a"], r.o.Slots["bootloader"]["b"]
	r.o.Regions = map[string]Region{a: {a, 0, size}, b: {b, 0, size}}
	header := &fallbackcopy.Header{Path: filepath.Join(t.TempDir(), "headers", "bootloader.a")}
	r.o.Headers = map[string]HeaderStore{a: header}
	r.restart()
	rel, err := r.engine.Inspect(t.Context(), r.url(), "a", update.InstallOptions{Mode: ModeStream})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.engine.Install(t.Context(), rel, quiet); err != nil {
		t.Fatal(err)
	}
	want := append(make([]byte, headerSize), booted[headerSize:size]...)
	if !bytes.Equal(r.loader("a"), append(want, stale[size:]...)) {
		t.Error("the slot is not a copy as far as it reaches, without the header, with the old content behind it")
	}
	if kept, err := header.Load(); err != nil || !bytes.Equal(kept, booted[:headerSize]) {
		t.Errorf("the header is not kept: %v", err)
	}
}

func TestRegionHasBounds(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "disk"), make([]byte, 10_000))
	for _, bad := range []Region{{path, -1, 100}, {path, 9_901, 100}, {path, 0, 0}, {path, 1 << 62, 1 << 62}} {
		if d, err := openRegion(bad, false); err == nil {
			d.Close()
			t.Errorf("%+v was opened", bad)
		}
	}
	d := must(openRegion(Region{path, 4096, 1000}, true))
	defer d.Close()
	for _, c := range []struct {
		n   int
		off int64
		ok  bool
	}{{1000, 0, true}, {1, 999, true}, {1, 1000, false}, {1001, 0, false}, {1, -1, false}, {1, 1 << 62, false}} {
		if _, err := d.WriteAt(make([]byte, c.n), c.off); (err == nil) != c.ok {
			t.Errorf("WriteAt(%d bytes, %d) = %v", c.n, c.off, err)
		}
		if _, err := d.ReadAt(make([]byte, c.n), c.off); (err == nil) != c.ok {
			t.Errorf("ReadAt(%d bytes, %d) = %v", c.n, c.off, err)
		}
	}
}
