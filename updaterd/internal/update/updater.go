// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"log/slog"
	"time"

	"github.com/updaterd/updaterd/bootctl"
)

// Options is everything an Updater needs. Boot, Engine, Health, System and
// DataDir must be set.
type Options struct {
	Compatible string // what this device is
	Version    string // of the booted system, if known
	DataDir    string // where the journal and the records are

	Boot     bootctl.Control
	Engine   Engine
	Health   Health
	Watchdog Watchdog // nil: nobody feeds one here
	System   System
	Log      *slog.Logger // nil: nothing is logged

	Deadline    time.Duration // of a trial; 0: 5 minutes
	MaxAttempts int           // starts of one job without getting further; 0: 3
	ImageFloor  uint64        // floor that the running image carries itself
	ImageTime   time.Time     // time floor that the running image carries itself
	WaiveEnvID  bool          // do without the proof that the bootloader reads our environment
}

// An Updater is the state machine with its journal.
type Updater struct{}

// New checks o; it touches nothing.
func New(o Options) (*Updater, error) { panic("todo") }

// Run reconciles the journal with the boot environment, then works until ctx
// ends. A killed daemon goes on here. It is called once.
func (u *Updater) Run(ctx context.Context) error { panic("todo") }

// Ready is closed once Run has reconciled.
func (u *Updater) Ready() <-chan struct{} { panic("todo") }

// Inspect verifies what is at ref and tells what installing it would cost.
func (u *Updater) Inspect(ctx context.Context, ref string, opt InstallOptions) (*Release, error) {
	panic("todo")
}

// Install starts a job; it returns once the release is verified and journalled.
func (u *Updater) Install(ctx context.Context, ref string, opt InstallOptions) (id uint64, err error) {
	panic("todo")
}

// Cancel ends the job before the device has rebooted into it.
func (u *Updater) Cancel(id uint64) error { panic("todo") }

// Pause halts downloading or installing until Resume, also across restarts.
func (u *Updater) Pause(id uint64) error { panic("todo") }

// Resume goes on after Pause.
func (u *Updater) Resume(id uint64) error { panic("todo") }

// Activate makes an installed release what the device starts next, on trial.
func (u *Updater) Activate(ctx context.Context) error { panic("todo") }

// Reboot starts the reboot into the trial.
func (u *Updater) Reboot(ctx context.Context) error { panic("todo") }

// Mark records a person's verdict, "good" or "bad", on a slot and returns a
// sentence that says what was done.
func (u *Updater) Mark(ctx context.Context, verdict string, slot bootctl.Slot) (string, error) {
	panic("todo")
}

// Snapshot is the whole visible state.
func (u *Updater) Snapshot() Snapshot { panic("todo") }

// Watch returns a channel that receives after changes of the snapshot (several
// changes may be one receive) and is closed when ctx ends.
func (u *Updater) Watch(ctx context.Context) <-chan struct{} { panic("todo") }

// History returns the latest results, newest first; limit 0 means all that are kept.
func (u *Updater) History(limit int) ([]Result, error) { panic("todo") }

// TimeFloor is the earliest time that it can be now.
func (u *Updater) TimeFloor() time.Time { panic("todo") }

// Records tells what each slot holds, as far as it is known.
func (u *Updater) Records() []SlotRecord { panic("todo") }
