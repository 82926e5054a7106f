// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/updaterd/updaterd/updaterd/internal/proof/medium"
)

// A trouble is something that fails, from its n-th time on or that time only.
type trouble struct {
	name string
	err  error
	is   func(o medium.Op) bool
}

func isFile(kinds ...medium.Kind) func(medium.Op) bool {
	return func(o medium.Op) bool { return slices.Contains(kinds, o.Kind) }
}

func isDisk(kind medium.Kind, prefix string) func(medium.Op) bool {
	return func(o medium.Op) bool { return o.Kind == kind && strings.HasPrefix(o.Path, prefix) }
}

var troubles = []trouble{
	{"full file system", syscall.ENOSPC, isFile(medium.Create, medium.Mkdir, medium.Write, medium.Rename)},
	{"read-only file system", syscall.EROFS, isFile(medium.Create, medium.Mkdir, medium.Write, medium.Rename, medium.Remove)},
	{"file system that fails to sync", syscall.EIO, isFile(medium.Sync, medium.DirSync)},
	{"unreadable file", syscall.EIO, isFile(medium.Read)},
	{"slot that cannot be written", syscall.EIO, isDisk(medium.DiskWrite, "/dev/rootfs")},
	{"slot that cannot be flushed", syscall.EIO, isDisk(medium.DiskSync, "/dev/bootloader")},
	{"slot that cannot be read", syscall.EIO, isDisk(medium.DiskRead, "/dev/rootfs.b")},
	{"source that cannot be read", syscall.EIO, isDisk(medium.DiskRead, "/dev/rootfs.a")},
	{"environment that cannot be written", syscall.EIO, isDisk(medium.DiskWrite, envDisk)},
	{"environment that cannot be flushed", syscall.EIO, isDisk(medium.DiskSync, envDisk)},
	{"copy of the environment that cannot be read", syscall.EIO, func(o medium.Op) bool {
		return o.Kind == medium.DiskRead && o.Path == envDisk && o.Off == 0
	}},
}

// TestTroubles lets each step of an update fail, once, or from then on until
// the device is restarted with the trouble gone. The invariants hold all the
// time, and the device always comes to a sound end.
func TestTroubles(t *testing.T) {
	t.Parallel()
	total := 0
	for i, tr := range troubles {
		t.Run(tr.name, func(t *testing.T) {
			b := small
			b.lock = t.TempDir() + "/lock"
			sc := scenarios[i%3]
			sc.safe = true
			runs := 0
			for _, once := range []bool{true, false} {
				for n, met := 1, true; met && !t.Failed(); n++ {
					d := b.newDevice(b.factory(sc.empty), sc.good, nil, 0)
					met = d.troubled(t, sc, tr, n, once)
					runs++
					if len(d.faults) > 0 {
						t.Errorf("%s, from step %d on (once: %v):\n\t%s\n%s", tr.name, n, once, strings.Join(d.faults, "\n\t"), last(d.m.Log(), 50))
					}
					if n > 1000 {
						t.Fatal("it never ends")
					}
				}
			}
			if runs < 5 {
				t.Errorf("only %d runs: the test proves nothing", runs)
			}
			total += runs
		})
	}
	fmt.Printf("steps that fail: %d runs of %d kinds of trouble\n", total, len(troubles))
}

// troubled lives with a trouble until nothing more happens, then without it; it
// reports whether the trouble was met at all.
func (d *device) troubled(t *testing.T, sc scenario, tr trouble, n int, once bool) (met bool) {
	count := 0
	fault := func(o medium.Op) error {
		if tr.is(o) {
			if count++; count == n || count > n && !once {
				met = true
				return tr.err
			}
		}
		return nil
	}
	synctest.Test(t, func(t *testing.T) {
		for range 8 {
			// U-Boot has no trouble: its write that fails is a start like any other.
			r, err := d.boot()
			if err != nil {
				d.fault("%v", err)
				return
			}
			d.m.Fault = fault
			over, err := d.life(sc, r)
			d.m.Fault = nil
			d.m.Restart(err == nil && r.reboot)
			d.check(d.m.State())
			if over || err != nil {
				break
			}
		}
		d.epoch++
		if err := d.live(sc); err != nil {
			d.fault("once the trouble is gone: %v", err)
		}
	})
	return met
}

// A data partition that is read-only from the beginning: nothing is installed,
// and neither the environment nor a slot is touched.
func TestReadOnlyData(t *testing.T) {
	b := small
	b.lock = t.TempDir() + "/lock"
	d := b.newDevice(b.factory(false), nil, nil, 0)
	d.m.Fault = func(o medium.Op) error {
		if troubles[1].is(o) {
			return syscall.EROFS
		}
		return nil
	}
	before := d.m.State().Sum()
	synctest.Test(t, func(t *testing.T) {
		r, err := d.boot()
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.life(scenarios[3], r)
		if err == nil || !strings.Contains(err.Error(), "read-only file system") {
			t.Errorf("an update on a read-only file system ended with: %v", err)
		}
	})
	if d.m.State().Sum() != before {
		t.Error("something was changed")
	}
}

// TestDataOfTheOldSystemAlone: the release on trial cannot mount the data partition,
// or not for writing, and is given up, whatever its checks say.
func TestDataOfTheOldSystemAlone(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(medium.Op) error{
		"read-only": func(o medium.Op) error {
			if troubles[1].is(o) {
				return syscall.EROFS
			}
			return nil
		},
		"missing": func(o medium.Op) error {
			switch {
			case o.Kind == medium.Read:
				return fs.ErrNotExist
			case troubles[1].is(o):
				return syscall.EROFS
			}
			return nil
		},
	}
	for name, fault := range kinds {
		for _, order := range []bool{false, true} {
			for _, health := range []string{"healthy", "unhealthy", "crashes"} {
				t.Run(fmt.Sprintf("%s/order %v/%s", name, order, health), func(t *testing.T) {
					b := small
					b.lock, b.order = t.TempDir()+"/lock", order
					sc := scenarios[2]
					sc.good = map[int]string{2: health}
					d := b.newDevice(b.factory(false), sc.good, nil, 0)
					synctest.Test(t, func(t *testing.T) {
						for {
							r, err := d.boot()
							if err != nil {
								t.Fatal(err)
							}
							if r.version == 2 {
								d.m.Fault = fault
							}
							over, err := d.life(sc, r)
							d.m.Fault = nil
							if err != nil {
								t.Fatal(err)
							}
							d.m.Restart(r.reboot)
							if d.check(d.m.State()); over {
								return
							}
						}
					})
					if len(d.faults) > 0 {
						t.Errorf("%s\n%s", strings.Join(d.faults, "\n\t"), last(d.m.Log(), 50))
					}
				})
			}
		}
	}
}

// The simulated clock begins in 2000, and the releases were made in 2030: as on
// a device without a clock of its own, which starts in 1970. All scenarios run
// so; here it is what is recorded.
func TestClockFarBehind(t *testing.T) {
	b := small
	b.lock = t.TempDir() + "/lock"
	_, log := b.recorded(t, scenarios[7])
	d := b.newDevice(b.factory(false), nil, nil, 0)
	d.settle(t, scenarios[7])
	if len(log) != len(d.m.Log()) {
		t.Errorf("%d steps, then %d: the same update is not the same", len(log), len(d.m.Log()))
	}
	content, _ := d.m.State().File(dataDir + "/floors.json")
	var floors struct {
		Body struct{ Time time.Time }
	}
	if err := json.Unmarshal(content, &floors); err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2030, 1, 4, 0, 0, 0, 0, time.UTC); !floors.Body.Time.Equal(want) {
		t.Errorf("time floor %v, want that of version 3, %v", floors.Body.Time, want)
	}
	content, _ = d.m.State().File(dataDir + "/history.jsonl")
	var results []struct{ Time time.Time }
	for line := range strings.Lines(string(content)) {
		var r struct{ Time time.Time }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
	}
	if len(results) != 2 || results[1].Time.Before(time.Date(2030, 1, 3, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("results at %v: the second is not after the time floor", results)
	}
	if len(d.faults) > 0 {
		t.Error(d.faults)
	}
}
