// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/durable"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/install"
	"github.com/updaterd/updaterd/updaterd/internal/proof/medium"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

const (
	dataDir = "/data/updaterd"
	second  = "/persist/updaterd" // a second store of the floors
	envDisk = "/dev/env"
	bootMax = 40 // starts after which a device does not settle any more
)

// A board is what does not change in the life of a device.
type board struct {
	envSize int64 // of one copy; the second one follows it
	filler  int   // bytes of other variables
	large   bool  // sectors of 4 KiB, not 512 bytes
	order   bool  // scheme bootorder
	stores  bool  // the floors are kept in a second store, too
	lock    string
}

// small: a copy is 8 sectors of 512 bytes, of which 5 are used.
var small = board{envSize: 4 << 10, filler: 2000}

// large: a copy is 3 sectors of 4 KiB, all of them used.
var large = board{envSize: 12 << 10, filler: 9000, large: true}

// A device is a board with its media, and what the proof knows beside them.
type device struct {
	board
	m *medium.Medium
	// good says how a version behaves on trial: healthy unless given.
	good map[int]string
	// judged are the versions whose checks passed on trial, or that a person
	// marked good: only they may be confirmed.
	judged map[int]bool

	epoch   int // how many power cuts there were
	boots   int
	trials  map[int]int // starts of a version on trial
	running bootctl.Slot
	faults  []string // invariants that did not hold
	// lossy: something is broken, so that records may be lost, and with them where
	// the data come from, and that a write of the second copy may not have come about.
	lossy bool
	// problems are what the daemon reported at its starts.
	problems []string
}

func (d *device) fault(format string, args ...any) {
	if len(d.faults) < 8 {
		d.faults = append(d.faults, fmt.Sprintf(format, args...))
	}
}

func slotDisk(class string, slot bootctl.Slot) string { return "/dev/" + class + "." + string(slot) }

// factory is a device that was never updated: version 1 runs from slot a, and
// version 0 is in slot b, unless that is empty.
func (b board) factory(empty bool) *medium.State {
	s := medium.NewState()
	for slot, version := range map[bootctl.Slot]int{"a": 1, "b": 0} {
		for _, class := range classes {
			content := make([]byte, class.slot)
			if slot == "a" || !empty {
				copy(content, theProduct().images[version][class.name])
			}
			s.AddDisk(slotDisk(class.name, slot), content)
		}
	}
	s.AddDisk(envDisk, make([]byte, 2*b.envSize))
	m := medium.New(s)
	u := b.uboot(m)
	if empty && b.order {
		u.Default["BOOT_ORDER"] = "A"
	} else if empty {
		u.Default["boot_bad"] = "b"
	}
	if err := u.Format(); err != nil {
		panic(err)
	}
	return m.State()
}

func (b board) config() uboot.Config {
	return uboot.Config{{Path: envDisk, Size: b.envSize}, {Path: envDisk, Offset: b.envSize, Size: b.envSize}}
}

func (b board) store(m *medium.Medium) uboot.Store {
	return must(uboot.OpenStoreOn(b.config(), b.lock, func(path string, _ int) (uboot.Disk, error) { return m.Disk(path) }))
}

// uboot is U-Boot on the media.
func (b board) uboot(m *medium.Medium) *ubootmodel.Board {
	env := ubootmodel.Factory("a")
	if b.order {
		env = ubootmodel.FactoryOrder("a")
	}
	env["env_id"] = "factory"
	// Behind the variables that change lie others, so that a copy that is written
	// differs in several sectors.
	for i := range b.filler / 100 {
		env[fmt.Sprintf("v%02d", i)] = strings.Repeat(string(rune('a'+i%26)), 95)
	}
	return &ubootmodel.Board{Store: b.store(m), Default: env}
}

// bootable reports whether U-Boot can load what is in a slot.
func bootable(s *medium.State, slot bootctl.Slot) bool {
	for _, class := range classes {
		if first, _ := holds(s, class.name, slot); first < 0 {
			return false
		}
	}
	return true
}

// A run is one life of the kernel.
type run struct {
	d       *device
	version int
	start   ubootmodel.Start
	id      string
	end     context.CancelFunc
	reboot  bool
}

func (r *run) BootID() string                { return r.id }
func (r *run) Booted() (bootctl.Slot, error) { return r.start.Slot, nil }
func (r *run) EnvID() string                 { return r.start.EnvID }

func (r *run) Reboot(context.Context) error {
	r.reboot = true
	r.end()
	return nil
}

func (r *run) Check(ctx context.Context, alive func()) error {
	alive()
	select {
	case <-time.After(10 * time.Second): // minimum uptime
	case <-ctx.Done():
		return ctx.Err()
	}
	switch r.d.good[r.version] {
	case "unhealthy":
		return errors.New("unit app.service is failed")
	case "crashes": // panic=N, or a watchdog
		r.end()
		<-ctx.Done()
		return ctx.Err()
	}
	r.d.judge(r.version)
	return nil
}

// formFile is what an application keeps: the version in whose form its data are.
const formFile = "/data/application/form"

// migrate brings the data into the form of the version that runs, by way of one
// that no version can read. It does no harm the second time.
func (r *run) migrate(ctx context.Context, m update.Migration) error {
	d := r.d
	if whole := (update.Origin{Version: fmt.Sprint(r.version), Sequence: uint64(10 * r.version), BuildID: buildID(r.version)}); m.Slot != r.start.Slot ||
		m.To.Version != whole.Version || m.To.BuildID != whole.BuildID || !d.lossy && (m.To != whole || m.From.Version == "" || m.From.BuildID == "") {
		d.fault("9: version %d in slot %s is told %+v", r.version, r.start.Slot, m)
	}
	for _, form := range []string{"half ", ""} {
		time.Sleep(time.Second)
		if err := ctx.Err(); err != nil {
			return err
		}
		for i, g := range d.generations(d.m.State()) {
			if (i == 0 || !d.lossy) && (g.trial || g.primary != r.start.Slot) {
				d.fault("9: version %d is migrated to, and %v", r.version, g)
			}
		}
		if _, err := durable.MakeDir(d.m, filepath.Dir(formFile), 0o700); err != nil {
			return err
		}
		if err := durable.WriteFile(d.m, formFile, fmt.Appendf(nil, "%s%d", form, r.version), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// judge makes a version one that may be confirmed.
func (d *device) judge(version int) {
	d.judged[version] = true
	d.m.Note(fmt.Sprint("judged good: ", version))
}

// boot starts the device until a system runs that gets to user space.
func (d *device) boot() (*run, error) {
	for range bootMax {
		d.boots++
		state := d.m.State()
		start, err := d.uboot(d.m).Boot(func(slot bootctl.Slot) bool { return bootable(state, slot) })
		if err != nil {
			return nil, fmt.Errorf("U-Boot: %w", err)
		}
		version, whole := system(state, start.Slot)
		switch {
		case start.Defaults:
			return nil, errors.New("8: no copy of the environment is intact, U-Boot started with its defaults")
		case !whole:
			return nil, fmt.Errorf("2: U-Boot started slot %s, which is not complete", start.Slot)
		}
		if g := d.generations(d.m.State()); len(g) > 0 && g[0].trial && g[0].primary == start.Slot {
			if d.trials[version]++; d.trials[version] > 12 {
				return nil, fmt.Errorf("6: version %d was started %d times on trial", version, d.trials[version])
			}
		}
		d.m.Note(fmt.Sprintf("U-Boot starts slot %s, version %d", start.Slot, version))
		d.running = start.Slot
		if d.good[version] != "never starts" {
			return &run{d: d, version: version, start: start, id: fmt.Sprintf("boot-%d.%d", d.epoch, d.boots)}, nil
		}
		d.m.Restart(false)
	}
	return nil, errors.New("6: the device starts for ever and never gets to user space")
}

// An engine is the product's, whose reports wait until all else stands still:
// so the order of the steps is the same in every run.
type engine struct {
	*install.Engine
	// halt, if not nil, is told each stage and how far it is, and may block.
	halt func(ctx context.Context, p update.Progress)
}

func (e engine) paced(ctx context.Context, report func(update.Progress)) func(update.Progress) {
	return func(p update.Progress) {
		report(p)
		time.Sleep(time.Nanosecond) // of the simulated clock
		if e.halt != nil {
			e.halt(ctx, p)
		}
	}
}

func (e engine) Download(ctx context.Context, r *update.Release, report func(update.Progress)) error {
	return e.Engine.Download(ctx, r, e.paced(ctx, report))
}

func (e engine) Install(ctx context.Context, r *update.Release, report func(update.Progress)) (update.InstallStats, error) {
	return e.Engine.Install(ctx, r, e.paced(ctx, report))
}

func (e engine) Verify(ctx context.Context, r *update.Release, report func(update.Progress)) error {
	return e.Engine.Verify(ctx, r, e.paced(ctx, report))
}

// disks opens the slots on a medium.
type disks struct{ *medium.Medium }

func (d disks) Open(path string, _ bool) (install.Device, error) { return d.Disk(path) }
func (d disks) Source(path string) (install.Source, error)       { return d.Disk(path) }
func (d disks) Same(a, b string) (bool, error)                   { return a == b, nil }

func (d disks) Size(path string) (int64, error) {
	disk, err := d.Disk(path)
	if err != nil {
		return 0, err
	}
	return disk.Size(), nil
}

// daemon is updaterd as main puts it together, on the device's media.
func (d *device) daemon(r *run, halt func(context.Context, update.Progress)) (*update.Updater, error) {
	var updater *update.Updater
	slots := map[string]map[bootctl.Slot]string{}
	for _, class := range classes {
		slots[class.name] = map[bootctl.Slot]string{"a": slotDisk(class.name, "a"), "b": slotDisk(class.name, "b")}
	}
	e, err := install.New(install.Options{
		Compatible: "board", Slots: slots, Booted: r.Booted, Dir: filepath.Join(dataDir, "downloads"), StoreBudget: 1 << 20,
		Policy: func() (*sign.Policy, error) { return theProduct().keyring.Policy(1), nil },
		Open: func(ref string) (install.Remote, error) {
			var version int
			_, err := fmt.Sscanf(ref, "https://example.com/%d.upb", &version)
			return &remote{m: d.m, data: theProduct().bundles[version]}, err
		},
		Records: func() []update.SlotRecord { return updater.Records() },
		BuildID: buildID(r.version), Devices: disks{d.m}, Files: d.m,
	})
	if err != nil {
		return nil, err
	}
	scheme := uboot.Scheme{Name: uboot.Bootcount, Started: r.start.Slot, BootID: r.id}
	if d.order {
		scheme.Name = uboot.Bootorder
	}
	control, err := uboot.NewScheme(d.store(d.m), scheme)
	if err != nil {
		return nil, err
	}
	o := update.Options{
		Compatible: "board", Version: fmt.Sprint(r.version), DataDir: dataDir, Files: d.m, Boot: control,
		Engine: engine{e, halt}, Health: r, System: r, Deadline: time.Minute,
	}
	o.BuildID, o.Migrate = buildID(r.version), r.migrate
	if d.stores {
		o.FloorStore = second
	}
	updater, err = update.New(o)
	return updater, err
}

// newDevice is a device in a state. What it writes is looked at.
func (b board) newDevice(s *medium.State, good map[int]string, judged []int, epoch int) *device {
	d := &device{board: b, epoch: epoch, m: medium.New(s), good: good, judged: map[int]bool{}, trials: map[int]int{}}
	for _, version := range judged {
		d.judged[version] = true
	}
	d.m.Before = d.watch
	return d
}

// watch looks at a step before it is made: invariant 5.
func (d *device) watch(o medium.Op) {
	if o.Kind != medium.DiskWrite || o.Path == envDisk {
		return
	}
	slot := bootctl.Slot(o.Path[len(o.Path)-1:])
	if slot == d.running {
		d.fault("5: slot %s is written while it runs", slot)
	}
}

// notes reads what a log says of what was judged good.
func judgedIn(log []medium.Op) []int {
	var list []int
	for _, o := range log {
		var version int
		if o.Kind == medium.Mark {
			if n, _ := fmt.Sscanf(o.Note, "judged good: %d", &version); n == 1 && !slices.Contains(list, version) {
				list = append(list, version)
			}
		}
	}
	return list
}
