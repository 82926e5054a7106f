// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"time"

	"github.com/updaterd/updaterd/bootctl"
)

// Named is an error with one of the stable names of docs/errors.md. The server
// turns the name into a D-Bus error, updaterctl into an exit code.
type Named interface {
	error
	ErrorName() string
}

// A Release is a bundle whose signature was verified and that this device may
// install into Target.
type Release struct {
	// Ref is where the bundle was found: an http(s) URL or an absolute path.
	Ref string
	// Digest identifies the release: "sha256:" and the hex digest of the signed manifest.
	Digest     string
	Version    string
	Sequence   uint64
	Floor      uint64
	Compatible []string
	// Created is the release's signed time, and TimeFloor what that proves; zero if
	// only keys signed it that could state any time.
	Created   time.Time
	TimeFloor time.Time
	KeyIDs    []string
	Target    bootctl.Slot
	Images    []ReleaseImage
	// Mode is "store" or "stream": what Download and Install will do.
	Mode     string
	Download Cost
	// Job is the job that the release is worked on for, 0 before there is one:
	// what a job costs is counted over restarts.
	Job uint64
}

// A ReleaseImage is one image of a release and the recipe this device would use for it.
type ReleaseImage struct {
	Class    string `json:"class"`
	Size     int64  `json:"size"`
	Digest   string `json:"digest"`
	BuildID  string `json:"build_id,omitempty"`
	Recipe   string `json:"recipe"`   // "full", "blocks" or "delta", or RecipeCarried
	Download int64  `json:"download"` // bytes for that recipe
}

// RecipeCarried is the recipe of an image that the release does not have: the
// booted slot's is copied to the target, so that all slots of it belong together.
const RecipeCarried = "carried"

// Cost is what a release costs on the wire, in bytes, envelope included:
// Minimum if a download is already stored or the target slot already holds
// it, Expected for the chosen recipes, Maximum if every chunk of every delta
// has to come from the full recipe after all. The slot itself is not read for
// it, which may take a minute: Expected leaves out an image of which the target
// slot's record says that it is there, and counts chunks that are there by
// chance, which Download does not fetch. Only for a blocks recipe both slots are
// searched, because nothing else tells what it costs; if that takes half the
// time of an inspection, Expected is all of the recipe.
type Cost struct {
	Minimum, Expected, Maximum int64
}

// Progress is how far a stage has come. Done and Total count the bytes of that
// stage, Fetched counts what came over the wire since the job began.
type Progress struct {
	Stage       string // "download", "compare", "install" or "verify"
	Done, Total int64
	Fetched     int64
}

// Engine turns a reference into a written and read-back target slot. Its
// methods resume: what was done before a restart is verified and kept.
type Engine interface {
	// Inspect opens ref, verifies the envelope, and checks that this device can
	// install it into target (compatible, sizes, sources). It changes nothing.
	Inspect(ctx context.Context, ref string, target bootctl.Slot, opt InstallOptions) (*Release, error)
	// Reopen is Inspect for a job that goes on after a restart: it uses the
	// stored envelope if it has one, and fails if the release is not digest.
	Reopen(ctx context.Context, ref, digest string, target bootctl.Slot, opt InstallOptions) (*Release, error)
	// Download fetches and authenticates all that a release in store mode needs;
	// it touches no slot. In stream mode it does nothing.
	Download(ctx context.Context, r *Release, report func(Progress)) error
	// Install clears the first block of each target slot, writes the chunks,
	// flushes, reads back past the page cache, and writes the first blocks last.
	Install(ctx context.Context, r *Release, report func(Progress)) (InstallStats, error)
	// Verify re-reads the target slots and compares them with the release.
	Verify(ctx context.Context, r *Release, report func(Progress)) error
	// Permit verifies a permit, and that it lets this device install a release with
	// that sequence now, which is the later one of the clock and the time floor.
	Permit(envelope []byte, sequence uint64, now time.Time) (*Permit, error)
	// Clean drops whatever is stored for downloads.
	Clean() error
}

// MaxPermit bounds the file of a permit, in bytes.
const MaxPermit = 64 << 10

// A Permit lets this device go back behind its version floor.
type Permit struct {
	ID    string
	First uint64 // to which the floor may be lowered
}

// InstallStats is what a job did, in bytes, over all its restarts; a power cut
// hides 4 MiB of what was fetched at most, and 64 MiB of what was written. Written and Unchanged together are
// the size of the images, more only if the medium made writing again necessary.
type InstallStats struct {
	Fetched   int64 `json:"fetched"`
	Written   int64 `json:"written"`
	Blocks    int64 `json:"blocks"`    // of 4 KiB that Written took
	Unchanged int64 `json:"unchanged"` // in the target slot already, and not written
	Reused    int64 `json:"reused"`    // chunks that were made from what another slot holds
}

// InstallOptions is what a caller may choose for one job.
type InstallOptions struct {
	// Mode is "", "auto", "store" or "stream".
	Mode string `json:"mode,omitempty"`
	// KeepInstalled stops the job at installed: Activate is a later, separate step.
	KeepInstalled bool `json:"keep_installed,omitempty"`
	// Reboot reboots into the trial as soon as the slot is primary.
	Reboot bool `json:"reboot,omitempty"`
	// Retry allows a bundle that is known bad.
	Retry bool `json:"retry,omitempty"`
	// Permit is the file of a permit to go back behind the version floor.
	Permit []byte `json:"permit,omitempty"`
}

// Health judges a trial.
type Health interface {
	// Check returns nil once every required check has passed. Its error is the
	// sentence that is recorded as the reason for rolling back. It calls alive
	// whenever a check makes progress.
	Check(ctx context.Context, alive func()) error
}

// Watchdog is the hardware watchdog, if updaterd is the one who opens it.
type Watchdog interface {
	// Trial makes feeding depend on Alive being called; it ends with Settled.
	Trial()
	Alive()
	Settled()
}

// System is what the machine says about itself.
type System interface {
	// BootID changes at every start of the kernel.
	BootID() string
	// Booted is the slot this system runs from, taken from the kernel command
	// line and checked against what is mounted on /. An error means: unproven.
	Booted() (bootctl.Slot, error)
	// EnvID is the canary found on the kernel command line, or "".
	EnvID() string
	// Reboot starts an orderly reboot and returns.
	Reboot(ctx context.Context) error
}

// Snapshot is the whole visible state, as the server shows it.
type Snapshot struct {
	State      State
	Compatible string
	DeviceID   string   // that permits may be bound to; "" if it has none
	Groups     []string // likewise
	Version    string   // of the booted system, if known
	Booted     bootctl.Slot
	Primary    bootctl.Slot
	Target     bootctl.Slot
	Trial      bool
	TriesLeft  int
	Bad        []bootctl.Slot
	Slots      []SlotRecord
	Floors     Floors
	Job        *JobStatus
	Last       *Result
	Channel    *ChannelStatus // nil: none is configured
	// Problems lists, in sentences, what keeps Install from working.
	Problems []string
	// Migrating tells that the applications' data are being migrated.
	Migrating bool
}

// JobStatus is the job in hand, or the last one.
type JobStatus struct {
	ID      uint64
	Ref     string
	Version string
	State   State
	Progress
	Rate     int64         // bytes per second
	TimeLeft time.Duration // 0 = unknown
	Paused   bool
	Waiting  string // for what, in a sentence; "" if it gets on
	Finished bool
	Result   Result // once Finished
}

// Outcome is the stable word for how a job ended.
type Outcome string

// The outcomes.
const (
	Success    Outcome = "success"
	Failed     Outcome = "failed"
	Cancelled  Outcome = "cancelled"
	RolledBack Outcome = "rolled-back" // by our decision or by the bootloader's; Message tells
)

// Result is how a job ended.
type Result struct {
	Job     uint64    `json:"job"`
	Outcome Outcome   `json:"outcome"`
	Error   string    `json:"error,omitempty"` // stable error name
	Message string    `json:"message,omitempty"`
	Version string    `json:"version,omitempty"`
	Digest  string    `json:"digest,omitempty"`
	From    string    `json:"from,omitempty"` // slots: "a"
	To      string    `json:"to,omitempty"`
	Time    time.Time `json:"time"`
	// Override tells that a person confirmed the trial, not the checks.
	Override bool         `json:"override,omitempty"`
	Stats    InstallStats `json:"stats"`
}

// SlotRecord is the durable knowledge of what a slot holds.
type SlotRecord struct {
	Slot     bootctl.Slot `json:"slot"`
	Class    string       `json:"class"`
	Digest   string       `json:"digest"` // image digest; "" if unknown
	Size     int64        `json:"size"`
	BuildID  string       `json:"build_id,omitempty"`
	Version  string       `json:"version,omitempty"`
	Sequence uint64       `json:"sequence,omitempty"` // of the release it came with; 0: not known
	Verified bool         `json:"verified"`           // written and read back by us
}
