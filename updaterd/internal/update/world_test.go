// SPDX-License-Identifier: Apache-2.0

package update

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
)

var errCut = errors.New("power cut")

// world is a device that outlives its power cuts: a boot environment that U-Boot
// (a model of it) and bootctl/uboot share, a data partition, and two slots.
type world struct {
	scheme string // of the boot environment
	medium *ubootmodel.Memory
	board  ubootmodel.Board
	slots  map[bootctl.Slot]*content
	stored map[string]bool // chunks on the data partition
	data   map[string][]byte
	floor  uint64            // before anything was confirmed
	second map[string][]byte // files of a second store of the floors; nil: there is none
	good   map[string]string // version -> "healthy", "unhealthy", "hangs", "crashes", "never boots"
	waive  bool
	// readOnly is a data partition that cannot be written, full one without room.
	readOnly, full bool

	mu       sync.Mutex
	steps    int            // durable steps so far
	cutAt    []int          // the power is cut before these steps
	torn     bool           // the cut step, if it writes the environment, is half done
	off      bool           // until the next start
	cut      func()         // ends the life that is being lived
	log      []string       // what became durable, for a failing test
	faults   []string       // invariants that did not hold
	starts   map[string]int // starts of a version while it was on trial
	boots    int
	was      generation // the environment in force before the step
	judged   map[string]bool
	sure     map[string]bool // versions that were confirmed
	lastSure bootctl.Slot
	selected bootctl.Slot // by the switch
	running  bootctl.Slot
	reboots  int
	form     string // version whose form the applications' data have
	hooks    int    // how often the migration was begun
}

// content is what a slot holds: chunk 0 makes it bootable.
type content struct{ chunks [4]string }

func (c *content) is(version string) bool {
	return c.chunks == [4]string{version, version, version, version}
}
func (c *content) bootable() bool { return c.chunks[0] != "" }

func newWorld() *world { return newWorldOf(uboot.Bootcount) }

func newWorldOf(scheme string) *world {
	w := &world{
		scheme: scheme,
		medium: ubootmodel.NewMemory(0x200, 2),
		slots:  map[bootctl.Slot]*content{"a": {[4]string{"1", "1", "1", "1"}}, "b": {[4]string{"0", "0", "0", "0"}}},
		stored: map[string]bool{}, data: map[string][]byte{},
		good:   map[string]string{"0": "healthy", "1": "healthy", "2": "healthy"},
		starts: map[string]int{}, judged: map[string]bool{}, sure: map[string]bool{"1": true}, lastSure: "a", selected: "a", form: "1",
	}
	env := ubootmodel.Factory("a")
	if scheme == uboot.Bootorder {
		env = ubootmodel.FactoryOrder("a")
	}
	env["env_id"] = "factory"
	w.board = ubootmodel.Board{Store: w.medium, Default: env}
	if err := w.board.Format(); err != nil {
		panic(err)
	}
	w.powerOn()
	return w
}

// powerOn ends a cut.
func (w *world) powerOn() {
	w.mu.Lock()
	w.off = false
	w.mu.Unlock()
	w.medium.PowerOn()
	w.medium.Tear = func(_, _ int, old, new []byte) ([]byte, bool) {
		if err := w.step("environment"); err != nil {
			if w.torn {
				return append(bytes.Clone(new[:40]), old[40:]...), true
			}
			return old, true
		}
		return new, false
	}
}

// step is called before anything becomes durable; afterwards the world is looked at.
func (w *world) step(what string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.off {
		return errCut
	}
	w.check("before " + what)
	w.steps++
	if slices.Contains(w.cutAt, w.steps) {
		w.log = append(w.log, fmt.Sprintf("%d CUT before %s", w.steps, what))
		w.off = true
		if w.cut != nil {
			w.cut()
		}
		return errCut
	}
	w.log = append(w.log, fmt.Sprintf("%d %s", w.steps, what))
	return nil
}

func (w *world) fault(format string, args ...any) {
	if len(w.faults) < 5 {
		w.faults = append(w.faults, fmt.Sprintf(format, args...))
	}
}

// check asserts the invariants of state-machine.md on what is durable now.
func (w *world) check(when string) {
	g := w.generations()
	if len(g) == 0 {
		w.fault("%s: no copy of the environment is intact", when)
		return
	}
	for i, s := range g { // 8: each copy alone must do
		name := fmt.Sprintf("%s, generation -%d (%+v)", when, i, s)
		some := false
		for slot, c := range w.slots {
			complete := c.is(c.chunks[0]) && c.bootable()
			if complete && w.sure[c.chunks[0]] && s.startable(slot) {
				some = true
			}
			if !complete && (!s.IsBad(slot) || c.bootable()) {
				w.fault("2: %s: slot %s is half written (%q) and bootable", name, slot, c.chunks)
			}
			if !complete && s.Primary == slot {
				w.fault("3: %s: slot %s is primary before its read-back", name, slot)
			}
		}
		if !some {
			w.fault("1: %s: no confirmed slot can be started", name)
		}
		if s.Primary != w.lastSure && !s.Trial && i == 0 && !w.sure[w.slots[s.Primary].chunks[0]] && !w.judged[w.slots[s.Primary].chunks[0]] {
			w.fault("4: %s: slot %s is confirmed, but was not judged", name, s.Primary)
		}
	}
	w.checkSwitch(when)
	now := g[0]
	if w.was.Trial && !now.Trial && now.Primary == w.was.Primary {
		version := w.slots[now.Primary].chunks[0]
		if !w.judged[version] {
			w.fault("4: %s: slot %s was confirmed without a check or an override", when, now.Primary)
		}
	}
	if !now.Trial && !now.IsBad(now.Primary) {
		w.lastSure = now.Primary
		w.sure[w.slots[now.Primary].chunks[0]] = true
	}
	w.was = now
	if !w.sure[strings.TrimPrefix(w.form, "half ")] {
		w.fault("9: %s: the data are those of version %s, which is not confirmed", when, w.form)
	}
	for _, place := range []map[string][]byte{w.data, w.second} { // 7
		b, ok := place[fileFloors]
		var f floors
		if err := decodeRecord(b, &f); ok && (err != nil || f.Sequence != w.floor && !w.sure["2"]) {
			w.fault("7: %s: floors are %+v (%v) before any confirmation", when, f, err)
		}
	}
}

// judgedGood is what makes a confirmation legitimate.
func (w *world) judgedGood(version string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judged[version] = true
}

// The data partition.

func (w *world) read(name string, limit int) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b, ok := w.data[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(b), nil
}

func (w *world) write(name string, data []byte) error {
	if w.readOnly {
		return syscall.EROFS
	}
	if w.full {
		return fmt.Errorf("write: %w", syscall.ENOSPC)
	}
	what := name
	if name == fileJournal {
		if j, err := decodeJournal(data); err == nil {
			what = "J: " + describe(j)
			if j.Job != nil && j.Job.Override {
				defer w.judgedGood(j.Job.Version)
			}
		}
	}
	if err := w.step(what); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.data[name] = bytes.Clone(data)
	return nil
}

func (w *world) keep(name, as string) error {
	if err := w.step("keep " + name); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.data[as] = w.data[name]
	delete(w.data, name)
	return nil
}

// floorStore is the second store of the floors, if the device has one.
func (w *world) floorStore() files {
	if w.second == nil {
		return nil
	}
	return secondStore{w}
}

type secondStore struct{ w *world }

func (s secondStore) read(name string, limit int) ([]byte, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	b, ok := s.w.second[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(b), nil
}

func (s secondStore) write(name string, data []byte) error {
	if err := s.w.step("second " + name); err != nil {
		return err
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.second[name] = bytes.Clone(data)
	return nil
}

func (s secondStore) keep(name, as string) error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.second[as] = s.w.second[name]
	delete(s.w.second, name)
	return nil
}

// engine installs release "2" of one image in four chunks.
type engine struct {
	w    *world
	mode string
	// permit judges permits; nil: none is known.
	permit func(envelope []byte, sequence uint64, now time.Time) (*Permit, error)
	// gate, if not nil, is called in the middle of a stage ("download" or
	// "install") and may block until its context ends.
	gate func(ctx context.Context, stage string) error
}

func (e *engine) Inspect(_ context.Context, ref string, target bootctl.Slot, opt InstallOptions) (*Release, error) {
	mode := e.mode
	if mode == "" {
		mode = "store"
	}
	return &Release{Ref: ref, Digest: "sha256:2", Version: "2", Sequence: 20, Floor: 20, Created: testNow, TimeFloor: testNow, Target: target,
		Mode: mode, Images: []ReleaseImage{{Class: "rootfs", Size: 4, Digest: "sha256:img", Recipe: "full", Download: 4}}}, nil
}

func (e *engine) Reopen(ctx context.Context, ref, digest string, target bootctl.Slot, opt InstallOptions) (*Release, error) {
	return e.Inspect(ctx, ref, target, opt)
}

func (e *engine) Download(ctx context.Context, r *Release, report func(Progress)) error {
	for i := range 4 {
		if i == 2 {
			if err := e.wait(ctx, "download"); err != nil {
				return err
			}
		}
		chunk := fmt.Sprint(i)
		e.w.mu.Lock()
		have := e.w.stored[chunk]
		e.w.mu.Unlock()
		if !have {
			if err := e.w.step("store chunk " + chunk); err != nil {
				return err
			}
			e.w.mu.Lock()
			e.w.stored[chunk] = true
			e.w.mu.Unlock()
		}
		report(Progress{Stage: "download", Done: int64(i + 1), Total: 4, Fetched: int64(i + 1)})
	}
	return ctx.Err()
}

func (e *engine) wait(ctx context.Context, stage string) error {
	if e.gate != nil {
		if err := e.gate(ctx, stage); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (e *engine) Install(ctx context.Context, r *Release, report func(Progress)) (InstallStats, error) {
	w := e.w
	put := func(i int, text string) error {
		w.mu.Lock()
		done := w.slots[r.Target].chunks[i] == text
		if r.Target == w.running || r.Target == w.lastSure {
			w.fault("5: slot %s is written while %s runs and %s is confirmed", r.Target, w.running, w.lastSure)
		}
		w.mu.Unlock()
		if done {
			return nil
		}
		if err := w.step(fmt.Sprintf("slot %s: chunk %d = %q", r.Target, i, text)); err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.slots[r.Target].chunks[i] = text
		return nil
	}
	stats := InstallStats{Fetched: 4, Written: 4}
	for n, i := range []int{0, 1, 2, 3, 0} {
		if n == 3 {
			if err := e.wait(ctx, "install"); err != nil {
				return stats, err
			}
		}
		if err := ctx.Err(); err != nil {
			return stats, err
		}
		text := r.Version
		if n == 0 {
			text = "" // the first block is cleared first and written last
		}
		if err := put(i, text); err != nil {
			return stats, err
		}
		report(Progress{Stage: "install", Done: int64(n), Total: 4})
	}
	return stats, nil
}

func (e *engine) Verify(ctx context.Context, r *Release, report func(Progress)) error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if !e.w.slots[r.Target].is(r.Version) {
		return errorf(NameMedium, "slot %s does not hold version %s", r.Target, r.Version)
	}
	return ctx.Err()
}

func (e *engine) Permit(envelope []byte, sequence uint64, now time.Time) (*Permit, error) {
	if e.permit == nil {
		return nil, errorf(NameNotPermitted, "%q is no permit", envelope)
	}
	return e.permit(envelope, sequence, now)
}

// permitTo is a permit for sequences from first to 20, without an end.
func permitTo(first uint64) func([]byte, uint64, time.Time) (*Permit, error) {
	return func(_ []byte, sequence uint64, _ time.Time) (*Permit, error) {
		if sequence < first || sequence > 20 {
			return nil, errorf(NameNotPermitted, "not for sequence %d", sequence)
		}
		return &Permit{ID: "7", First: first}, nil
	}
}

func (e *engine) Clean() error {
	if err := e.w.step("clean"); err != nil {
		return err
	}
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	clear(e.w.stored)
	return nil
}

// machine is one run of the kernel: System, Health and Watchdog.
type machine struct {
	w       *world
	version string
	bootID  string
	start   ubootmodel.Start
	end     context.CancelFunc
	reboot  bool
	refuse  error // what comes of a reboot
	trial   int   // calls of Trial minus calls of Settled
}

func (m *machine) BootID() string                { return m.bootID }
func (m *machine) Booted() (bootctl.Slot, error) { return m.start.Slot, nil }
func (m *machine) EnvID() string                 { return m.start.EnvID }

func (m *machine) Reboot(context.Context) error {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.w.reboots++
	if m.refuse != nil {
		return m.refuse
	}
	m.reboot = true
	m.end()
	return nil
}

func (m *machine) Check(ctx context.Context, alive func()) error {
	alive()
	select {
	case <-time.After(10 * time.Second): // minimum uptime
	case <-ctx.Done():
		return ctx.Err()
	}
	switch m.w.good[m.version] {
	case "unhealthy":
		return errors.New("unit app.service is failed")
	case "hangs":
		<-ctx.Done()
		return ctx.Err()
	case "crashes": // a watchdog, or panic=N
		m.end()
		<-ctx.Done()
		return ctx.Err()
	}
	m.w.judgedGood(m.version)
	return nil
}

// migrate brings the data into the form of the version that runs, in two steps.
func (m *machine) migrate(ctx context.Context, to Migration) error {
	w := m.w
	w.mu.Lock()
	w.hooks++
	for _, g := range w.generations() { // the one that is stale, too
		if g.Trial || g.Primary != m.start.Slot || g.IsBad(m.start.Slot) {
			w.fault("9: version %s is migrated to while the environment says %+v", m.version, g)
		}
	}
	if to.From.Version != "1" || to.To.Version != m.version || to.To.Sequence != 20 || to.Slot != m.start.Slot {
		w.fault("9: version %s is told %+v", m.version, to)
	}
	w.mu.Unlock()
	for _, form := range []string{"half " + m.version, m.version} {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := w.step("data: " + form); err != nil {
			return err
		}
		w.mu.Lock()
		w.form = form
		w.mu.Unlock()
	}
	return nil
}

func (m *machine) Trial()   { m.trial++ }
func (m *machine) Alive()   {}
func (m *machine) Settled() { m.trial-- }

// boot starts the device until a kernel runs that reaches user space.
func (w *world) boot() (*machine, error) {
	for range 20 {
		w.powerOn()
		start, err := w.board.Boot(func(s bootctl.Slot) bool { return w.slots[s].bootable() })
		if errors.Is(err, ubootmodel.ErrCut) {
			continue // the power was cut while U-Boot saved
		}
		if err != nil {
			return nil, err
		}
		w.boots++
		version := w.slots[start.Slot].chunks[0]
		if w.generations()[0].Trial {
			w.starts[version]++
		}
		if w.good[version] == "never boots" {
			continue
		}
		w.running = start.Slot
		return &machine{w: w, version: version, bootID: fmt.Sprintf("boot-%d", w.boots), start: start}, nil
	}
	return nil, errors.New("the device starts for ever and never gets to user space")
}

func (w *world) options(m *machine, e *engine) Options {
	return Options{Compatible: "board", Version: m.version, DataDir: "/nonexistent", Boot: w.switched(m), Engine: e,
		Health: m, Watchdog: m, System: m, Deadline: time.Minute, WaiveEnvID: w.waive,
		Migrate: m.migrate}
}

// copyOf is a copy of the world as it is, for a cut in it.
func (w *world) String() string {
	return fmt.Sprintf("slots a=%q b=%q, environment %+v, data %v\n\t%s", w.slots["a"].chunks, w.slots["b"].chunks,
		w.generations(), slices.Sorted(maps.Keys(w.data)), strings.Join(w.log, "\n\t"))
}
