// SPDX-License-Identifier: Apache-2.0

package update

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/updaterd/updaterd/bootctl"
)

// An EventKind says what happened.
type EventKind string

// What people and programs ask for.
const (
	EventInstall  EventKind = "install"
	EventPause    EventKind = "pause"
	EventResume   EventKind = "resume"
	EventCancel   EventKind = "cancel"
	EventActivate EventKind = "activate"
	EventReboot   EventKind = "reboot"
	EventMarkGood EventKind = "mark good" // the booted slot, in trial
	EventMarkBad  EventKind = "mark bad"  // the booted slot, in trial
)

// What came of the work.
const (
	EventProgressed EventKind = "progressed" // another tenth is done
	EventDownloaded EventKind = "downloaded"
	EventWritten    EventKind = "written" // and flushed, and read back
	EventVerified   EventKind = "verified"
	EventFailed     EventKind = "failed"
	EventHealthy    EventKind = "healthy"
	EventUnhealthy  EventKind = "unhealthy" // or past the deadline
	EventMigrated   EventKind = "migrated"
	EventUnmigrated EventKind = "not migrated"
	EventBroke      EventKind = "broke" // a durable step failed
	EventOverdue    EventKind = "reboot overdue"
)

// EventKinds lists every kind.
func EventKinds() []EventKind {
	return []EventKind{EventInstall, EventPause, EventResume, EventCancel, EventActivate, EventReboot, EventMarkGood,
		EventMarkBad, EventProgressed, EventDownloaded, EventWritten, EventVerified, EventFailed, EventHealthy,
		EventUnhealthy, EventMigrated, EventUnmigrated, EventBroke, EventOverdue}
}

// Facts are what the machine is like while an event is handled.
type Facts struct {
	Now    time.Time
	BootID string
	// Booted is the slot that this system runs from, "" if that is unproven.
	Booted bootctl.Slot
	// Boot is what the boot environment says, unless Unreadable.
	Boot       bootctl.Status
	Unreadable bool
	// Confirmed lists the slots that are on record as confirmed.
	Confirmed []bootctl.Slot
	// MaxAttempts bounds attempts and roll-backs.
	MaxAttempts int
	// Due is the migration that was not done yet, if one is, and Migrating tells
	// that it is being done.
	Due       *Due
	Migrating bool
}

// An Event is what next decides on.
type Event struct {
	Kind EventKind
	Facts
	Job    *Job         // install: the new job, without its number
	Fresh  bool         // activate: the target was read back in this life of the daemon
	Mark   int          // progressed: tenths
	Stats  InstallStats // written
	Name   string       // failed, broke: stable error name
	Reason string       // failed, unhealthy, mark bad, not migrated, broke: a sentence
	Due    *Due         // migrated, not migrated
	Broke  Effect       // broke: the step
}

// An EffectKind is one step of the runner.
type EffectKind string

// Durable steps. One that fails ends the list and becomes EventBroke.
const (
	DoJournal  EffectKind = "J"        // replace the journal
	DoApply    EffectKind = "B"        // change the boot environment
	DoForget   EffectKind = "forget"   // the record of what the target held
	DoRemember EffectKind = "remember" // that the booted slot is confirmed
	DoFloors   EffectKind = "floors"   // raise the version floor and the time floor
	DoSlots    EffectKind = "slots"    // record what the target holds now
	DoAllow    EffectKind = "allow"    // take the bundle off the deny-list
	DoDeny     EffectKind = "deny"     // put the bundle on the deny-list
	DoCount    EffectKind = "count"    // count a failure of the bundle
	DoOwe      EffectKind = "owe"      // record that the data have to be migrated to the confirmed release
	// What came of that.
	DoMigrated   EffectKind = "migrated"
	DoUnmigrated EffectKind = "not migrated"
)

// Steps that may fail without harm.
const (
	DoKeep   EffectKind = "in memory" // replace the journal in force, not the one on the medium
	DoReport EffectKind = "report"    // append the result to the history
	DoClean  EffectKind = "clean"     // drop what was stored for the download
	DoStop   EffectKind = "stop"      // end the work that runs, and wait for it
	DoSettle EffectKind = "settle"    // tell the watchdog that the trial is over
	DoAlarm  EffectKind = "alarm"     // tell people
	DoReboot EffectKind = "reboot"
)

// Work that goes on beside the loop; its end is an event.
const (
	DoDownload EffectKind = "download"
	DoInstall  EffectKind = "write"
	DoVerify   EffectKind = "verify"
	DoCheck    EffectKind = "check"
	DoMigrate  EffectKind = "migrate" // if there is a hook, and one is due
)

// An Effect is one step, with what it needs.
type Effect struct {
	Kind    EffectKind
	Journal *Journal       // DoJournal, DoKeep
	Change  bootctl.Change // DoApply
	Job     *Job           // DoForget to DoOwe
	Result  *Result        // DoReport, DoDeny, DoCount
	Text    string         // DoAlarm, DoUnmigrated
	First   bool           // DoCheck: in this run of the kernel
}

// durable reports whether the steps after e must not be done if e fails.
func (e Effect) durable() bool {
	return slices.Contains([]EffectKind{DoJournal, DoApply, DoForget, DoRemember, DoFloors, DoSlots, DoAllow, DoDeny,
		DoCount, DoOwe, DoMigrated, DoUnmigrated}, e.Kind)
}

// String is how tests and docs show an effect.
func (e Effect) String() string {
	switch e.Kind {
	case DoJournal:
		return "J: " + describe(*e.Journal)
	case DoKeep:
		return "in memory: " + describe(*e.Journal)
	case DoApply:
		return "B: " + describeChange(e.Change)
	case DoAlarm:
		return "alarm: " + e.Text
	case DoCheck:
		if e.First {
			return "first check"
		}
	}
	return string(e.Kind)
}

func describe(j Journal) string {
	if j.Job == nil {
		if j.Last == nil {
			return string(j.State)
		}
		s := fmt.Sprintf("%s(%s", j.State, j.Last.Outcome)
		if j.Last.Error != "" {
			s += " " + j.Last.Error
		}
		if j.Last.Override {
			s += " by override"
		}
		return s + ")"
	}
	var flags []string
	add := func(set bool, flag string) {
		if set {
			flags = append(flags, flag)
		}
	}
	add(j.Job.Adopted, "adopted")
	add(j.Job.Paused, "paused")
	add(j.Job.Attempts > 1, fmt.Sprintf("attempt %d", j.Job.Attempts))
	add(j.Job.Cancelling, "cancelling")
	add(j.Job.Override, "override")
	add(j.Job.Reason != "", "reason")
	add(j.Job.Rollbacks > 0, fmt.Sprintf("roll-back %d", j.Job.Rollbacks))
	if len(flags) == 0 {
		return string(j.State)
	}
	return fmt.Sprintf("%s(%s)", j.State, strings.Join(flags, ", "))
}

func describeChange(c bootctl.Change) string {
	var parts []string
	if c.Primary != "" {
		parts = append(parts, "primary="+string(c.Primary))
	}
	switch c.Trial {
	case bootctl.TrialBegin:
		parts = append(parts, "trial, count=0")
	case bootctl.TrialEnd:
		parts = append(parts, "no trial, count=0")
	}
	for _, s := range c.Bad {
		parts = append(parts, "bad+="+string(s))
	}
	for _, s := range c.NotBad {
		parts = append(parts, "bad-="+string(s))
	}
	if c.BothCopies {
		parts = append(parts, "both copies")
	}
	return strings.Join(parts, ", ")
}
