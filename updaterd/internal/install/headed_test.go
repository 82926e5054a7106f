// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/fallbackcopy"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

var errOut = errors.New("the power is off")

// A supply lets a number of writes through, those to slots and those to stores
// counted alike, and then none.
type supply struct{ left int }

func (s *supply) take() error {
	if s.left == 0 {
		return errOut
	}
	s.left--
	return nil
}

type cutDevice struct {
	device
	*supply
}

func (d cutDevice) WriteAt(p []byte, off int64) (int, error) {
	if err := d.take(); err != nil {
		return 0, err
	}
	return d.device.WriteAt(p, off)
}

type cutStore struct {
	HeaderStore
	*supply
}

func (s cutStore) Save(b []byte) error {
	if err := s.take(); err != nil {
		return err
	}
	return s.HeaderStore.Save(b)
}

func (s cutStore) Drop() error {
	if err := s.take(); err != nil {
		return err
	}
	return s.HeaderStore.Drop()
}

// The ROM starts the first copy that has a header. An installation to copy a,
// cut before any of its writes, leaves copy b as the one that is started; what is
// complete is not started either before it is selected; and what is selected is
// complete.
func TestInstallToTheFirstCopy(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	oldLoader, newLoader := noise(31, 100_000), noise(32, 100_000)
	data := build(t, nil, "bootloader", nil, newLoader, "rootfs", v1, v2)
	for cut := 0; ; cut++ {
		r := newRig(t, data, nil, v1) // slot b runs
		r.o.Booted = func() (bootctl.Slot, error) { return "b", nil }
		r.withLoader(oldLoader, oldLoader)
		a, b := r.o.Slots["bootloader"]["a"], r.o.Slots["bootloader"]["b"]
		header := &fallbackcopy.Header{Path: filepath.Join(t.TempDir(), "headers", "bootloader.a")}
		rom := fallbackcopy.New(a, b, header)
		if err := rom.Select("b"); err != nil {
			t.Fatal(err)
		}
		power := &supply{left: cut}
		r.o.Headers = map[string]HeaderStore{a: cutStore{header, power}}
		install := func() (*update.Release, error) {
			r.restart()
			r.engine.open = func(path string, write bool) (device, error) {
				d, err := openDevice(path, write)
				if err != nil {
					return nil, err
				}
				d = cutDevice{d, power}
				if store := r.o.Headers[path]; store != nil {
					d = &headed{d, store}
				}
				return d, nil
			}
			rel, err := r.engine.Inspect(t.Context(), r.url(), "a", update.InstallOptions{Mode: ModeStream})
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.engine.Install(t.Context(), rel, quiet)
			return rel, err
		}
		rel, err := install()
		if slot, serr := rom.Selected(); slot != "b" || serr != nil || !bytes.Equal(must(os.ReadFile(b)), oldLoader) {
			t.Fatalf("cut %d: slot %s is started, %v", cut, slot, serr)
		}
		if kept, _ := header.Load(); err != nil && kept != nil {
			// If somebody selected it now, it would have to be whole.
			whole := append(bytes.Clone(kept), must(os.ReadFile(a))[headerSize:]...)
			if !bytes.Equal(whole, oldLoader) && !bytes.Equal(whole, newLoader) {
				t.Fatalf("cut %d: the header of a copy that is not whole is kept", cut)
			}
		}
		done := err == nil
		if !done && !errors.Is(err, errOut) {
			t.Fatal(err)
		}
		power.left = -1
		if !done {
			if rel, err = install(); err != nil {
				t.Fatalf("cut %d: again: %v", cut, err)
			}
		}
		if err := r.engine.Verify(t.Context(), rel, quiet); err != nil {
			t.Errorf("cut %d: %v", cut, err)
		}
		if slot, _ := rom.Selected(); slot != "b" {
			t.Fatalf("cut %d: what is installed is started at once", cut)
		}
		if err := rom.Select("a"); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(must(os.ReadFile(a)), newLoader) {
			t.Fatalf("cut %d: what is selected is not what was installed", cut)
		}
		if done {
			if cut < 8 {
				t.Errorf("only %d writes", cut)
			}
			return
		}
	}
}
