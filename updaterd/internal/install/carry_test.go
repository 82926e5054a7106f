// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

const loaderSize = 3 << 20

// withLoader gives the rig slots of class bootloader.
func (r *rig) withLoader(booted, target []byte) {
	r.t.Helper()
	dir := filepath.Dir(r.o.Slots["rootfs"]["a"])
	r.o.Slots["bootloader"] = map[bootctl.Slot]string{
		"a": write(r.t, filepath.Join(dir, "bootloader.a"), booted),
		"b": write(r.t, filepath.Join(dir, "bootloader.b"), target),
	}
	r.restart()
}

func (r *rig) loader(slot bootctl.Slot) []byte {
	return must(os.ReadFile(r.o.Slots["bootloader"][slot]))
}

// A release without a bootloader brings the booted one into the target's slot:
// what an older release left there must not be started with the new system.
func TestClassWithoutAnImageIsCarriedOver(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			booted := noise(20, loaderSize)
			stale := bytes.Clone(booted)
			copy(stale[1<<20+8192:], noise(21, 10_000)) // 3 blocks
			r := newRig(t, data, v1, nil)
			r.withLoader(booted, stale)
			rel, stats := r.install(mode)
			if !bytes.Equal(r.loader("b"), booted) || !bytes.Equal(r.loader("a"), booted) {
				t.Error("the target's bootloader is not the booted one")
			}
			r.holds(v2, nil)
			want := update.ReleaseImage{Class: "bootloader", Size: loaderSize, Digest: bundle.Sum(booted).String(), Recipe: "carried"}
			if len(rel.Images) != 2 || rel.Images[1] != want {
				t.Errorf("images = %+v, want the second to be %+v", rel.Images, want)
			}
			if rel.Download.Expected != r.server.total() || stats.Fetched != r.server.total() {
				t.Errorf("served %d bytes, inspect promised %d", r.server.total(), rel.Download.Expected)
			}
			// Three blocks, and the first one, which is cleared and written again.
			if most := int64(len(v2)) + 4*blockSize; stats.Written > most {
				t.Errorf("%d bytes written, want %d at most", stats.Written, most)
			}
			if err := r.engine.Verify(t.Context(), rel, quiet); err != nil {
				t.Error(err)
			}
			spoilt := bytes.Clone(booted)
			spoilt[len(spoilt)-1] ^= 1
			write(t, r.o.Slots["bootloader"]["b"], spoilt)
			wantName(t, r.engine.Verify(t.Context(), rel, quiet), update.NameMedium)
		})
	}
}

// Of a slot with a record only what was installed there counts, and it must be that still.
func TestCarryKnowsWhatWasInstalled(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	booted := noise(22, loaderSize)
	const used = 1<<20 + 4711
	r := newRig(t, data, v1, nil)
	r.o.Records = func() []update.SlotRecord {
		return []update.SlotRecord{{Slot: "a", Class: "bootloader", Digest: bundle.Sum(booted[:used]).String(), Size: used}}
	}
	// A smaller slot is enough for it.
	r.withLoader(booted, make([]byte, used+1))
	r.install(ModeStream)
	if got := r.loader("b"); !bytes.Equal(got[:used], booted[:used]) || got[used] != 0 {
		t.Error("the target's bootloader is not what was installed")
	}

	changed := bytes.Clone(booted)
	changed[used-1] ^= 1
	r.withLoader(changed, make([]byte, loaderSize))
	_, err := r.engine.Inspect(t.Context(), r.url(), "b", update.InstallOptions{})
	wantName(t, err, update.NameSourceChanged)
	if !strings.Contains(err.Error(), `no image of class "bootloader"`) || !strings.Contains(err.Error(), "bootloader.a") {
		t.Errorf("error %q does not say what is missing, or which slot is wrong", err)
	}
}

func TestCarryRefuses(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	r := newRig(t, data, v1, nil)
	r.withLoader(noise(23, loaderSize), make([]byte, loaderSize-1))
	_, err := r.engine.Inspect(t.Context(), r.url(), "b", update.InstallOptions{})
	wantName(t, err, update.NameTooLarge)

	// A slot that is mounted may change while it is copied.
	r.withLoader(noise(23, loaderSize), make([]byte, loaderSize))
	open := r.engine.open
	r.engine.open = func(path string, write bool) (device, error) {
		if write && strings.HasSuffix(path, "bootloader.a") {
			return nil, errors.New("mounted")
		}
		return open(path, write)
	}
	_, err = r.engine.Inspect(t.Context(), r.url(), "b", update.InstallOptions{})
	wantName(t, err, update.NameBadState)

	// What changes after it was inspected is not copied, and ends up in no slot.
	r.withLoader(noise(23, loaderSize), make([]byte, loaderSize))
	rel := r.inspect(ModeStream)
	write(t, r.o.Slots["bootloader"]["a"], noise(24, loaderSize))
	_, err = r.run(t.Context(), rel, quiet)
	wantName(t, err, update.NameSourceChanged)
	if b := r.loader("b"); !bytes.Equal(b[:firstBlock], make([]byte, firstBlock)) {
		t.Error("a bootloader that is not complete has its first block")
	}
}

// A release that is looked at again is carried over as the booted slot is now,
// although what was found out about its other images still holds.
func TestCarryIsReadAtEachInspect(t *testing.T) {
	t.Parallel()
	v1, v2 := relatives()
	r := newRig(t, build(t, withBlocks, "rootfs", nil, v2), v1, nil)
	r.withLoader(noise(28, loaderSize), make([]byte, loaderSize))
	r.inspect(ModeStream)
	changed := noise(29, loaderSize)
	write(t, r.o.Slots["bootloader"]["a"], changed)
	if rel, _ := r.install(ModeStream); rel.Images[1].Digest != bundle.Sum(changed).String() || !bytes.Equal(r.loader("b"), changed) {
		t.Errorf("images = %+v", rel.Images)
	}
}

// A run that is stopped anywhere leaves no slot of the target with its first
// block, and the next run finishes it.
func TestCarryResumes(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	booted := noise(25, loaderSize)
	for stop := 1; ; stop++ {
		r := newRig(t, data, v1, noise(26, slotSize))
		r.withLoader(booted, noise(27, loaderSize))
		rel := r.inspect(ModeStream)
		ctx, tick := cancelAfter(t, stop)
		_, err := r.run(ctx, rel, func(update.Progress) { tick() })
		if err == nil {
			if stop < 20 {
				t.Errorf("only %d places to stop at", stop)
			}
			return
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		zero := make([]byte, firstBlock)
		written := !bytes.Equal(r.target()[:firstBlock], noise(26, firstBlock))
		if written && (!bytes.Equal(r.target()[:firstBlock], zero) || !bytes.Equal(r.loader("b")[:firstBlock], zero)) {
			t.Fatalf("stopped at %d: a slot can be started", stop)
		}
		r.restart()
		r.install(ModeStream)
		if r.holds(v2, noise(26, slotSize)); !bytes.Equal(r.loader("b"), booted) {
			t.Fatalf("stopped at %d: the target's bootloader is not the booted one", stop)
		}
	}
}
