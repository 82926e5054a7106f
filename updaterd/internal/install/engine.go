// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/durable"
	"github.com/updaterd/updaterd/bundle/seal"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// What to do about a chunk whose delta does not fit the source (Options.Fallback).
const (
	FallbackFull = "full" // take it from the full recipe, within the byte budget
	FallbackWait = "wait" // stop; the job may be started again when bytes are cheaper
	FallbackFail = "fail" // the release cannot be installed
)

// How a release gets to its slot (Options.Mode, update.InstallOptions.Mode).
const (
	ModeAuto   = "auto"   // store if it fits
	ModeStore  = "store"  // download all, authenticate all, then write
	ModeStream = "stream" // write each chunk as it comes
)

// A Remote reads byte ranges of one bundle. An error may have the methods
// Changed() bool, if the file is not the one that was read before, and
// Truncated() bool, if it ends too early.
type Remote interface {
	// Range reads n bytes from off; it reconnects by itself.
	Range(ctx context.Context, off, n int64) (io.ReadCloser, error)
	// Save stores a range in a file of which the first have bytes are there.
	Save(ctx context.Context, off, n int64, path string, have int64, report func(done int64)) error
	// Verified tells that this is the bundle that is wanted: what else is
	// answered from now on is a fault of the link.
	Verified()
	// Size is the size of the whole file, -1 if unknown.
	Size() int64
	// Fetched counts the bytes read so far.
	Fetched() int64
}

// MemoryLimit is for [debug.SetMemoryLimit] in a process that installs: it bounds
// the heap and what the runtime keeps for it, so that with its code the process
// stays within 32 MiB.
const MemoryLimit = 21 << 20

// Options configure an Engine.
type Options struct {
	// Compatible is the kind of this device.
	Compatible string
	// DeviceID and Groups are what permits may be bound to.
	DeviceID string
	Groups   []string
	// Slots maps a slot class to the devices of its two slots.
	Slots map[string]map[bootctl.Slot]string
	// Regions has, by the name that Slots calls them, those that have no device, or
	// not all of theirs.
	Regions map[string]Region
	// Headers has, by device, the slots whose first bytes are not to be in them
	// before the slot is selected.
	Headers map[string]HeaderStore
	// Booted is the slot this system runs from.
	Booted func() (bootctl.Slot, error)
	// Policy is asked for at every verification, so that a key can be withdrawn.
	Policy func() (*sign.Policy, error)
	// Identity is asked for when a bundle is encrypted; nil if there is none.
	Identity func() (*seal.Identity, error)
	// TimeFloor is the earliest time that it can be now; nil means that nothing is
	// known of it.
	TimeFloor func() time.Time
	// Dir is where downloads are stored; it is created if it is missing.
	Dir string
	// StoreBudget bounds what may be stored there; 0 means nothing.
	StoreBudget int64
	// ByteBudget bounds what one job may fetch; 0 means no bound.
	ByteBudget int64
	// Fallback is FallbackFull if "".
	Fallback string
	// Mode is ModeAuto if "".
	Mode string
	// Open opens a reference.
	Open func(ref string) (Remote, error)
	// Devices opens the slots; nil means the system's block devices and files.
	Devices Devices
	// Files is where Dir is; nil means the operating system's.
	Files durable.FS
	// Records are the durable records of what the slots hold.
	Records func() []update.SlotRecord
	// BuildID is that of the running system's os-release; a slot without a
	// record is known by it.
	BuildID string
	// InspectTimeout bounds Inspect, which somebody waits for; 0 means 1 min.
	InspectTimeout time.Duration
}

func (o *Options) validate() error {
	for _, f := range []struct {
		what    string
		missing bool
	}{
		{"Compatible", o.Compatible == ""}, {"Slots", len(o.Slots) == 0}, {"Booted", o.Booted == nil},
		{"Policy", o.Policy == nil}, {"Dir", o.Dir == ""}, {"Open", o.Open == nil},
	} {
		if f.missing {
			return fmt.Errorf("%s is not set", f.what)
		}
	}
	if !slices.Contains([]string{FallbackFull, FallbackWait, FallbackFail}, o.Fallback) {
		return fmt.Errorf("fallback %q: want full, wait or fail", o.Fallback)
	}
	if !slices.Contains([]string{ModeAuto, ModeStore, ModeStream}, o.Mode) {
		return fmt.Errorf("mode %q: want auto, store or stream", o.Mode)
	}
	if o.StoreBudget < 0 || o.ByteBudget < 0 {
		return errors.New("store budget and byte budget must not be negative")
	}
	seen := make(map[string]string)
	for _, class := range slices.Sorted(maps.Keys(o.Slots)) {
		for _, slot := range []bootctl.Slot{bootctl.SlotA, bootctl.SlotB} {
			name, path := slotName(class, slot), o.Slots[class][slot]
			if !filepath.IsAbs(path) {
				return fmt.Errorf("slot %s: device %q: want an absolute path", name, path)
			}
			if other := seen[path]; other != "" {
				return fmt.Errorf("slots %s and %s have the same device %s", other, name, path)
			}
			seen[path] = name
		}
	}
	return nil
}

func slotName(class string, slot bootctl.Slot) string { return class + "." + string(slot) }

// An Engine inspects, downloads and installs bundles. It is safe for concurrent
// use, but only one release can be downloaded or installed at a time.
type Engine struct {
	o     Options
	store store
	// open opens a slot's device.
	open func(path string, write bool) (device, error)
	// maxSums is how many checksums of blocks are kept.
	maxSums int

	mu      sync.Mutex
	plans   []*plan         // the latest last
	claimed map[string]bool // devices that Install has open
	latest  *estimate       // nil if there is none
}

// maxPlans bounds the releases whose plan is kept from Inspect to Install.
const maxPlans = 4

// New checks the options and makes an engine.
func New(o Options) (*Engine, error) {
	if o.TimeFloor == nil {
		o.TimeFloor = func() time.Time { return time.Time{} }
	}
	if o.Fallback == "" {
		o.Fallback = FallbackFull
	}
	if o.Mode == "" {
		o.Mode = ModeAuto
	}
	if o.InspectTimeout <= 0 {
		o.InspectTimeout = time.Minute
	}
	if o.Records == nil {
		o.Records = func() []update.SlotRecord { return nil }
	}
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("configure install: %w", err)
	}
	if o.Devices == nil {
		o.Devices = systemDevices{}
	}
	if o.Files == nil {
		o.Files = durable.OS{}
	}
	s, err := openStore(o.Files, o.Dir)
	if err != nil {
		return nil, fmt.Errorf("configure install: %w", err)
	}
	return &Engine{o: o, store: s, open: o.open, maxSums: maxSums, claimed: make(map[string]bool)}, nil
}

func (o *Options) open(path string, write bool) (device, error) {
	open := o.Devices.Open
	if r, ok := o.Regions[path]; ok {
		open = func(_ string, write bool) (device, error) { return openRegion(r, write) }
	}
	d, err := open(path, write)
	if store := o.Headers[path]; err == nil && store != nil {
		d = &headed{d, store}
	}
	return d, err
}

// Clean drops whatever is stored for downloads. What is known of the slots'
// blocks stays, for the next release.
func (e *Engine) Clean() error { return unstored(e.store.prune(nil, e.o.Records())) }

// keep remembers a plan from Inspect to Download and Install, so that they do
// not have to ask the server for the same bytes again.
func (e *Engine) keep(p *plan) {
	e.mu.Lock()
	defer e.mu.Unlock()
	// Of large plans only the latest is kept: whoever needs another makes it again.
	e.plans = slices.DeleteFunc(e.plans, func(old *plan) bool { return old.key == p.key || old.heavy && p.heavy })
	e.plans = append(e.plans, p)
	if len(e.plans) > maxPlans {
		e.plans = slices.Delete(e.plans, 0, len(e.plans)-maxPlans)
	}
}

func (e *Engine) recall(k planKey) *plan {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.plans {
		if p.key == k {
			return p
		}
	}
	return nil
}

// claim opens a device for Install. Inspect must not take it for one that
// somebody else uses.
func (e *Engine) claim(path string) (device, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.claimed[path] {
		return nil, fail(update.NameBusy, "%s is being written by another job", path)
	}
	d, err := e.open(path, true)
	if err != nil {
		return nil, unopened(err)
	}
	e.claimed[path] = true
	return d, nil
}

func (e *Engine) release(path string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.claimed, path)
}
