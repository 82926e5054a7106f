// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// Cuts, kills and noise in any order: the install ends, with the right content.
func TestRandomMisfortune(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	for seed := range uint64(16) {
		rng := rand.New(rand.NewPCG(seed, 7))
		before := noise(3, slotSize)
		r := newRig(t, data, v1, before)
		if seed%4 > 1 {
			r.o.BuildID = ""
			r.restart()
		}
		mode := modes[seed%2]
		cuts := rng.Perm(40)
		r.server.cut = func(i int, _, n int64) int64 {
			if i < 30 && cuts[i%40] < 20 {
				return int64(cuts[(i+1)%40]) * 3001
			}
			return n
		}
		rel := r.inspect(mode)
		for try := 0; ; try++ {
			ctx, cancel := context.WithCancel(t.Context())
			reports := rng.IntN(30)
			_, err := r.run(ctx, rel, func(update.Progress) {
				if reports--; reports < 0 && try < 8 {
					cancel()
				}
			})
			cancel()
			if err == nil {
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if off := int64(rng.IntN(len(v2))); off >= firstBlock {
				spoil(t, r.o.Slots["rootfs"]["b"], off)
			}
			if path := r.dataFile(); path != "" && mode == ModeStore {
				if info, err := os.Stat(path); err == nil && info.Size() > 0 {
					spoil(t, path, rng.Int64N(info.Size()))
				}
			}
			r.restart()
			if rel, err = r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		r.holds(v2, before)
	}
}

// Inspect of the same or another bundle must not disturb a running install.
func TestInspectDuringInstall(t *testing.T) {
	v1, v2 := systems()
	r := newRig(t, build(t, nil, "rootfs", v1, v2), v1, nil)
	rel := r.inspect(ModeStream)
	var inner error
	_, err := r.run(t.Context(), rel, func(p update.Progress) {
		if p.Stage == "install" && inner == nil {
			_, inner = r.engine.Inspect(t.Context(), r.url(), "b", update.InstallOptions{})
		}
	})
	if err != nil || inner != nil {
		t.Fatalf("Install = %v, Inspect meanwhile = %v", err, inner)
	}
	r.holds(v2, nil)
}

// The image is far larger than what is held of it.
func TestMemoryIsBoundedByTheChunk(t *testing.T) {
	const size = 48 << 20
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	f := must(os.Create(image))
	for i := range uint64(size >> 20) {
		must(f.Write(noise(i&^1, 1<<20))) // so every other chunk is made from the one before it
	}
	f.Close()
	ref := filepath.Join(dir, "f.upb")
	err := bundle.Build(t.Context(), ref, bundle.Spec{
		Compatible: []string{"board-1"}, Version: "2.0", Sequence: 2, Created: time.Unix(1, 0),
		Images: []bundle.ImageSpec{{Class: "rootfs", Path: image}}, Signers: []sign.Signer{newKey().signer},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, nil, nil, nil)
	for _, slot := range []bootctl.Slot{"a", "b"} {
		if err := os.Truncate(r.o.Slots["rootfs"][slot], size); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range modes {
		if err := os.Truncate(r.o.Slots["rootfs"]["b"], 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(r.o.Slots["rootfs"]["b"], size); err != nil {
			t.Fatal(err)
		}
		r.restart()
		debug.FreeOSMemory()
		rel, err := r.engine.Inspect(t.Context(), ref, "b", update.InstallOptions{Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		var peak uint64
		_, err = r.run(t.Context(), rel, func(update.Progress) {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse+m.StackInuse)
		})
		if err != nil {
			t.Fatal(err)
		}
		if peak > 24<<20 {
			t.Errorf("%s: %d MiB in use for an image of %d MiB", mode, peak>>20, size>>20)
		}
		t.Logf("%s: at most %.1f MiB in use", mode, float64(peak)/(1<<20))
		if err := sameFiles(image, r.o.Slots["rootfs"]["b"]); err != nil {
			t.Error(err)
		}
	}
}

func sameFiles(a, b string) error {
	x, y := must(os.Open(a)), must(os.Open(b))
	defer x.Close()
	defer y.Close()
	p, q := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(x, p)
		if m, _ := io.ReadFull(y, q); m != n || string(p[:n]) != string(q[:m]) {
			return errors.New(b + " differs from " + a)
		}
		if err != nil {
			return nil
		}
	}
}
