// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/durable"
)

// Options is everything an Updater needs. Boot, Engine, Health, System and
// DataDir must be set.
type Options struct {
	Compatible string // what this device is
	DeviceID   string // which one it is, "" if that is not known
	Groups     []string
	Version    string // of the booted system, if known
	BuildID    string // likewise
	DataDir    string // where the journal and the records are
	FloorStore string // a directory elsewhere, for another copy of the floors; "": none

	Boot     bootctl.Control
	Engine   Engine
	Health   Health
	Channel  *Channel // nil: nothing offers updates
	Watchdog Watchdog // nil: nobody feeds one here
	System   System
	Files    durable.FS   // nil: the operating system's
	Log      *slog.Logger // nil: nothing is logged

	Deadline time.Duration // of a trial; 0: 5 minutes
	// Uptime tells how long the system runs. The deadline counts from its start,
	// so that a daemon that is killed again and again does not put it off. nil:
	// it counts from the start of the checks.
	Uptime func() time.Duration
	// MinCheck is what the checks need at least. The first check in each start of the
	// kernel has as much, however late it begins.
	MinCheck    time.Duration
	MaxAttempts int       // starts of one job without getting further, failures of one bundle; 0: 3
	ImageFloor  uint64    // floor that the running image carries itself
	ImageTime   time.Time // time floor that the running image carries itself
	WaiveEnvID  bool      // do without the proof that the bootloader reads our environment
	// Restore writes the boot environment anew from defaults, with a change made
	// to them, after all its copies were lost. nil: that is left to a person.
	Restore func(bootctl.Change) error
	// Migrate brings the applications' data into the form of a release that was just
	// confirmed. It is called until it has returned nil once for each, and again
	// after a power cut in it. nil: nothing is to be done.
	Migrate func(ctx context.Context, m Migration) error
}

func (o *Options) validate() error {
	switch {
	case o.Boot == nil || o.Engine == nil || o.Health == nil || o.System == nil:
		return errors.New("update options: Boot, Engine, Health and System must be set")
	case o.DataDir == "":
		return errors.New("update options: DataDir must be set")
	case o.Deadline < 0 || o.MinCheck < 0 || o.MaxAttempts < 0:
		return errors.New("update options: Deadline, MinCheck and MaxAttempts must not be negative")
	}
	if o.Deadline == 0 {
		o.Deadline = 5 * time.Minute
	}
	if o.MaxAttempts == 0 {
		o.MaxAttempts = 3
	}
	if o.Files == nil {
		o.Files = durable.OS{}
	}
	if o.Watchdog == nil {
		o.Watchdog = noWatchdog{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

type noWatchdog struct{}

func (noWatchdog) Trial()   {}
func (noWatchdog) Alive()   {}
func (noWatchdog) Settled() {}

// An Updater is the state machine with its journal. All that is durable, and
// all decisions, are made by the one goroutine of Run; every other method asks
// it, or reads the snapshot that it published last.
type Updater struct {
	o     Options
	calls chan call
	ready chan struct{}
	ended chan struct{}

	// Of the goroutine of Run alone.
	j         Journal
	store     store
	status    bootctl.Status
	statusErr error
	booted    bootctl.Slot
	bootedErr error
	problem   string    // found at start, until it is settled
	alarms    []string  // since the last job began
	release   *Release  // of the job, once it was verified in this life
	readBack  time.Time // when the target was last read back in this life
	work      *work
	overdue   <-chan time.Time // the reboot that ends a trial is asked for again

	meter    meter
	checking chan struct{} // a token for the one check under way

	mu        sync.Mutex
	shown     Snapshot
	records   slots
	history   []Result
	waiting   string      // why the network does not get on
	unchecked string      // why the last check failed, "" if it did not
	stale     *time.Timer // announces the end of the channel's metadata
	watchers  map[chan struct{}]struct{}
}

// call is a function that the goroutine of Run executes.
type call struct {
	fn   func(ctx context.Context)
	done chan struct{}
}

// New checks o and reads the data directory; it changes nothing there. What
// cannot be read is a problem that Snapshot tells, not a reason not to start.
func New(o Options) (*Updater, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	// An error here shows again, with a better sentence, at the first write.
	_, _ = durable.MakeDir(o.Files, o.DataDir, 0o700)
	var second files
	if o.FloorStore != "" {
		_, _ = durable.MakeDir(o.Files, o.FloorStore, 0o700)
		second = dir{o.Files, o.FloorStore}
	}
	return newUpdater(o, dir{o.Files, o.DataDir}, second), nil
}

func newUpdater(o Options, f, second files) *Updater {
	u := &Updater{
		o:        o,
		calls:    make(chan call),
		ready:    make(chan struct{}),
		ended:    make(chan struct{}),
		store:    store{files: f, second: second},
		watchers: make(map[chan struct{}]struct{}),
		checking: make(chan struct{}, 1),
	}
	u.j = u.store.load()
	u.publish()
	return u
}

// Run reconciles the journal with the boot environment, then works until ctx
// ends. A killed daemon goes on here. It is called once.
func (u *Updater) Run(ctx context.Context) error {
	defer close(u.ended)
	defer u.stop()
	u.start(ctx)
	close(u.ready)
	for {
		var outcome chan Event
		if u.work != nil {
			outcome = u.work.outcome
		}
		select {
		case <-ctx.Done():
			return nil
		case c := <-u.calls:
			c.fn(ctx)
			u.publish() // before the caller looks
			close(c.done)
			continue
		case <-u.overdue:
			u.overdue = nil
			u.refresh() // updater-bootctl needs no daemon
			if err := u.handle(ctx, Event{Kind: EventOverdue}); err != nil {
				u.o.Log.Error("reboot again", "err", err)
			}
		case e := <-outcome:
			u.conclude(ctx, e)
		}
		u.publish()
	}
}

// start is the first thing that a life of the daemon does.
func (u *Updater) start(ctx context.Context) {
	u.booted, u.bootedErr = u.o.System.Booted()
	if u.bootedErr == nil && !u.booted.Valid() {
		u.bootedErr = errorf(NameBootedSlotUnproven, "the booted slot is %q", u.booted)
	}
	if u.bootedErr != nil {
		u.booted = ""
	}
	u.refresh()
	u.restore()
	u.greet(ctx) // before all else: until then, a power cut costs the confirmed slot a start
	u.mendFloors()
	plan := Reconcile(u.j, u.facts())
	u.o.Log.Info("reconcile", "state", string(u.j.State), "rule", plan.Rule, "booted", string(u.booted),
		"primary", string(u.status.Primary), "trial", u.status.Trial)
	err := u.perform(ctx, plan.Effects)
	if err != nil && u.j.State == StateIdle && u.work == nil && u.facts().onTrial(u.booted) {
		// The job was over, and that could not be put on record: behind it is a
		// trial that needs a judge.
		u.o.Log.Error("reconcile", "rule", plan.Rule, "err", err)
		plan = Reconcile(u.j, u.facts())
		err = u.perform(ctx, plan.Effects)
	}
	if err != nil {
		u.o.Log.Error("reconcile", "rule", plan.Rule, "err", err)
	}
	u.problem = plan.Problem
	u.belong()
	u.publish()
}

// greet tells a bootloader that counts every start that the confirmed slot has
// started: it fills up the starts that are left, in one write. In the same write
// it offers a canary, if there is none: an id that the bootloader will hand back
// at the next start, or that the next counted start proves. An id that is there
// already is left: either the next start proves it, or it is not the
// bootloader's environment, and another id would not help.
func (u *Updater) greet(ctx context.Context) {
	if u.statusErr != nil || !u.facts().steady(u.booted) {
		return
	}
	c := bootctl.Change{Trial: bootctl.TrialEnd}
	if !u.o.WaiveEnvID && u.j.State == StateIdle && u.status.EnvID == "" {
		c.EnvID = newEnvID()
	}
	if err := u.applyPatiently(ctx, c); err != nil {
		u.alarm("This start could not be acknowledged in the boot environment: %v.", err)
	}
}

// refresh reads the boot environment anew.
func (u *Updater) refresh() { u.status, u.statusErr = u.o.Boot.Status() }

// facts is what the machine is like now.
func (u *Updater) facts() Facts {
	f := Facts{Now: u.now(), BootID: u.o.System.BootID(), Booted: u.booted, Boot: u.status,
		Unreadable: u.statusErr != nil, Confirmed: u.store.slots.Confirmed, MaxAttempts: u.o.MaxAttempts,
		Migrating: u.migrating() != ""}
	if u.o.Migrate != nil {
		f.Due = u.store.data.Due
	}
	return f
}

// now is what [Updater.Now] is to others, in whole seconds.
func (u *Updater) now() time.Time {
	return later(time.Now(), u.effective().Time).UTC().Truncate(time.Second)
}

// ask executes fn in the goroutine of Run and waits for it.
func (u *Updater) ask(ctx context.Context, fn func(ctx context.Context) error) error {
	var err error
	c := call{done: make(chan struct{}), fn: func(ctx context.Context) { err = fn(ctx) }}
	select {
	case u.calls <- c:
	case <-u.ended:
		return errorf(NameBadState, "updaterd is stopping")
	case <-ctx.Done():
		return &Error{Name: NameCancelled, Message: "request given up", Err: ctx.Err()}
	}
	<-c.done
	return err
}
