// SPDX-License-Identifier: Apache-2.0

package client

import (
	"time"

	"github.com/godbus/dbus/v5"
)

// State is where the device is in the course of an update.
type State string

// The states, as in docs/state-machine.md.
const (
	Idle          State = "idle"
	Downloading   State = "downloading"
	Installing    State = "installing"
	Installed     State = "installed"
	PendingReboot State = "pending-reboot"
	Trial         State = "trial"
	RollingBack   State = "rolling-back"
)

// Outcome is how a job ended.
type Outcome string

// The outcomes that updaterd records.
const (
	Success      Outcome = "success"
	Failed       Outcome = "failed"
	WasCancelled Outcome = "cancelled"
	RolledBack   Outcome = "rolled-back"
)

// The tags of the types below are the JSON that updaterctl prints; names are
// only ever added.

// Status is the whole visible state of the device.
type Status struct {
	State      State  `json:"state"`
	Version    string `json:"version"`
	Compatible string `json:"compatible"`
	// DeviceID and Groups are what permits may be bound to.
	DeviceID    string          `json:"device_id"`
	Groups      []string        `json:"groups"`
	BootedSlot  string          `json:"booted_slot"`
	PrimarySlot string          `json:"primary_slot"`
	TargetSlot  string          `json:"target_slot"`
	BadSlots    []string        `json:"bad_slots"`
	Trial       bool            `json:"trial"`
	TriesLeft   int             `json:"tries_left"`
	Slots       map[string]Slot `json:"slots"`
	// Floor is the lowest sequence that may be installed; FloorPlaces are those of
	// "data_dir", "floor_store" and "image" that say so.
	Floor       uint64   `json:"floor"`
	FloorPlaces []string `json:"floor_places"`
	// TimeFloor is the earliest time that it can be now, zero if nothing is known of it.
	TimeFloor time.Time `json:"time_floor"`
	// Job is the job in hand, nil if there is none.
	Job *JobStatus `json:"job"`
	// LastResult is how the last job ended, nil if there was none.
	LastResult *Result `json:"last_result"`
	// Problems lists, in sentences, what keeps an install from working.
	Problems []string `json:"problems"`
	// Channel is where updates come from, nil if none is configured.
	Channel *Channel `json:"channel"`
}

// Freshness tells whether a channel may be hiding releases.
type Freshness string

// What channel metadata can be.
const (
	MetadataFresh   Freshness = "fresh"
	MetadataExpired Freshness = "expired" // past the end that they state
	MetadataNever   Freshness = "never"   // none were seen
)

// Channel is what is known of the channel that updates come from.
type Channel struct {
	Name      string    `json:"name"`
	Ref       string    `json:"ref"`
	Freshness Freshness `json:"freshness"`
	// Serial is the highest that was seen, 0 if none was.
	Serial  uint64    `json:"serial"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
	// Checked is when the channel last answered with metadata that are believed and
	// no replay; Error is why it did not at the last check.
	Checked time.Time `json:"checked"`
	Error   string    `json:"error"`
	// Offer is newer than what runs, nil if nothing is.
	Offer *Offer `json:"offer"`
}

// Offer is a release in a channel.
type Offer struct {
	Ref      string `json:"ref"`
	Digest   string `json:"digest"` // of the manifest
	Version  string `json:"version"`
	Sequence uint64 `json:"sequence"`
	Size     uint64 `json:"size"` // of the bundle; 0: not told
}

// Slot is what is known of one slot.
type Slot struct {
	Digest  string `json:"digest"`
	Size    uint64 `json:"size"`
	BuildID string `json:"build_id"`
	Version string `json:"version"`
	// Verified tells that updaterd wrote the slot and read it back.
	Verified bool `json:"verified"`
	Booted   bool `json:"booted"`
	Primary  bool `json:"primary"`
	Bad      bool `json:"bad"`
}

// JobStatus is how far a job has come.
type JobStatus struct {
	// Job is the job's number.
	Job     uint64 `json:"job"`
	Ref     string `json:"ref"`
	Version string `json:"version"`
	State   State  `json:"state"`
	// Stage is "download", "compare", "install" or "verify"; Done and Total are its bytes.
	Stage string `json:"stage"`
	Done  uint64 `json:"done"`
	Total uint64 `json:"total"`
	// Fetched counts what came over the wire since the job began.
	Fetched uint64 `json:"fetched"`
	// Rate is in bytes per second, TimeLeft in seconds; 0 is not known.
	Rate     uint64 `json:"rate"`
	TimeLeft uint64 `json:"time_left"`
	Paused   bool   `json:"paused"`
	// Outcome is "" until the job has ended.
	Outcome Outcome   `json:"result"`
	Error   ErrorName `json:"error"`
	Message string    `json:"message"`
}

// Finished reports whether the job has ended.
func (s *JobStatus) Finished() bool { return s.Outcome != "" }

// Err is nil unless the job has ended otherwise than well.
func (s *JobStatus) Err() error {
	if s.Outcome == "" || s.Outcome == Success {
		return nil
	}
	name := s.Error
	if name == "" {
		name = Internal
	}
	message := s.Message
	if message == "" {
		message = "install " + s.Ref + ": " + string(s.Outcome)
	}
	return &Error{Name: name, Message: message}
}

// Result is how a job ended.
type Result struct {
	Outcome   Outcome   `json:"result"`
	Error     ErrorName `json:"error"`
	Message   string    `json:"message"`
	Version   string    `json:"version"`
	Digest    string    `json:"digest"`
	From      string    `json:"from"`
	To        string    `json:"to"`
	Time      time.Time `json:"time"`
	Override  bool      `json:"override"`
	Fetched   uint64    `json:"fetched"`
	Written   uint64    `json:"written"`
	Blocks    uint64    `json:"blocks_written"` // of 4 KiB
	Unchanged uint64    `json:"unchanged"`      // in place already
	Reused    uint64    `json:"reused"`         // made from another slot
}

// Release is a bundle whose signature was verified and that this device can install.
type Release struct {
	Ref        string    `json:"ref"`
	Version    string    `json:"version"`
	Sequence   uint64    `json:"sequence"`
	Floor      uint64    `json:"floor"`
	Digest     string    `json:"digest"`
	Compatible []string  `json:"compatible"`
	Created    time.Time `json:"created"`
	KeyIDs     []string  `json:"key_ids"`
	// Target is the slot it would be written to, Mode "store" or "stream".
	Target string `json:"target"`
	Mode   string `json:"mode"`
	// Minimum, Expected and Maximum are bytes this device would download.
	Minimum  uint64  `json:"minimum"`
	Expected uint64  `json:"expected"`
	Maximum  uint64  `json:"maximum"`
	Images   []Image `json:"images"`
}

// Image is one image of a release and the recipe this device would use.
type Image struct {
	Class    string `json:"class"`
	Size     uint64 `json:"size"`
	Digest   string `json:"digest"`
	BuildID  string `json:"build_id"`
	Recipe   string `json:"recipe"`
	Download uint64 `json:"download"`
}

// InstallOptions is what may be chosen for one job. The zero value downloads by
// the device's policy and makes the new slot primary, but does not reboot.
type InstallOptions struct {
	// Mode is "" or "auto", "store" or "stream".
	Mode string
	// NoActivate stops at installed; Activate is a later, separate step.
	NoActivate bool
	// Reboot reboots into the trial as soon as the slot is primary.
	Reboot bool
	// Retry allows a bundle that is known bad.
	Retry bool
	// Permit is the content of a permit to go back behind the version floor.
	Permit []byte
}

func (o InstallOptions) dict() dict {
	d := dict{}
	if o.Mode != "" {
		d["mode"] = dbus.MakeVariant(o.Mode)
	}
	if o.NoActivate {
		d["activate"] = dbus.MakeVariant(false)
	}
	if o.Reboot {
		d["reboot"] = dbus.MakeVariant(true)
	}
	if o.Retry {
		d["retry"] = dbus.MakeVariant(true)
	}
	if len(o.Permit) > 0 {
		d["permit"] = dbus.MakeVariant(o.Permit)
	}
	return d
}
