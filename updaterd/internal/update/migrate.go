// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"fmt"
	"strings"

	"github.com/updaterd/updaterd/bootctl"
)

// An Origin is a release as a migration sees it; what is not known of it is zero.
type Origin struct {
	Version  string `json:"version,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`
	BuildID  string `json:"build_id,omitempty"`
}

// A Migration brings what applications keep on the data partition from the form
// of one release to that of another. It may be begun more than once.
type Migration struct {
	From, To Origin
	Slot     bootctl.Slot // that runs
}

// data is which release the applications' data belong to. It lies beside the
// journal and not in it: the daemon of the other slot reads that, and may be
// older than migrations.
type data struct {
	Release Origin `json:"release"`
	Due     *Due   `json:"due,omitempty"`
}

// Due is a migration that was not done yet.
type Due struct {
	Job      uint64       `json:"job"` // that installed the release
	Slot     bootctl.Slot `json:"slot"`
	Release  Origin       `json:"release"`
	Failures int          `json:"failures,omitempty"`
	Reason   string       `json:"reason,omitempty"` // of the last one
}

// owing is d once job was confirmed. A migration that failed before is not lost:
// the data still belong to the release from which that one was to lead.
func (d data) owing(job *Job, running Origin) data {
	d.Due = &Due{Job: job.ID, Slot: job.Target, Release: running}
	return d
}

// without forgets what is due in a slot that is about to be overwritten.
func (d data) without(slot bootctl.Slot) data {
	if d.Due != nil && d.Due.Slot == slot {
		d.Due = nil
	}
	return d
}

// migrated is d once what was due is done.
func (d data) migrated() data {
	if d.Due == nil {
		return d
	}
	return data{Release: d.Due.Release}
}

// unmigrated is d once it failed.
func (d data) unmigrated(reason string) data {
	if d.Due == nil {
		return d
	}
	due := *d.Due
	due.Failures++
	due.Reason = reason
	d.Due = &due
	return d
}

// owed is the migration that this start has to do: only in the slot that it is for,
// and only if that is what the boot environment starts for good.
func (f Facts) owed() []Effect {
	if f.Due == nil || f.Due.Slot != f.Booted || !f.steady(f.Booted) {
		return nil
	}
	return []Effect{do(DoMigrate)}
}

// notMigrated comes between what became of the update and why its migration failed.
const notMigrated = "; but the data were not migrated: "

// settled is what follows from the end of a migration: the record, and the result
// of the update as people see it. What is confirmed stays so.
func settled(j Journal, e Event) (Journal, []Effect, error) {
	first := do(DoMigrated)
	var last []Effect
	if e.Kind == EventUnmigrated {
		first = Effect{Kind: DoUnmigrated, Text: e.Reason}
		last = []Effect{alarm("The data were not migrated: %s. The new system stays; this is tried again when updaterd starts next.", e.Reason)}
	}
	if j.Last == nil || e.Due == nil || j.Last.Job != e.Due.Job || j.Last.Outcome != Success {
		return j, append([]Effect{first}, last...), nil
	}
	r := *j.Last
	r.Message, _, _ = strings.Cut(r.Message, notMigrated)
	r.Error = ""
	if e.Kind == EventUnmigrated {
		r.Error, r.Message = NameNotMigrated, clip(r.Message+notMigrated+e.Reason)
	}
	if r == *j.Last {
		return j, append([]Effect{first}, last...), nil
	}
	j.Last = &r
	return j, append([]Effect{first, {Kind: DoReport, Result: &r}, saved(j)}, last...), nil
}

// running is the release that runs.
func (u *Updater) running() Origin {
	return Origin{Version: u.o.Version, Sequence: u.store.slots.sequence(u.booted), BuildID: u.o.BuildID}
}

// belong records, on a device that has no such record, which release the data
// belong to: the one that runs before anything was updated.
func (u *Updater) belong() {
	if d := u.store.data; u.j.State != StateIdle || d.Due != nil || d.Release != (Origin{}) || u.statusErr != nil || !u.facts().steady(u.booted) {
		return
	}
	if err := put(u.store.files, fileData, &u.store.data, data{Release: u.running()}); err != nil {
		u.o.Log.Warn("record which release the data belong to", "err", err)
	}
}

// owe records that the data of a release that was just confirmed have to be migrated.
func (u *Updater) owe(job *Job) error {
	to := Origin{Version: job.Version, Sequence: job.Sequence, BuildID: u.o.BuildID}
	if to.Version == "" { // adopted
		to.Version = u.o.Version
	}
	d := u.store.data.owing(job, to)
	if u.o.Migrate == nil {
		d = d.migrated()
	}
	return put(u.store.files, fileData, &u.store.data, d)
}

// migrate lets the hook work and says how it ended.
func (u *Updater) migrate(ctx context.Context, d data) Event {
	e := Event{Kind: EventMigrated, Due: d.Due}
	if err := u.o.Migrate(ctx, Migration{From: d.Release, To: d.Due.Release, Slot: d.Due.Slot}); err != nil {
		e.Kind, e.Reason = EventUnmigrated, clip(err.Error())
	}
	return e
}

// migrating tells what keeps updates waiting while the hook works, or "".
func (u *Updater) migrating() string {
	if u.work == nil || u.work.kind != DoMigrate {
		return ""
	}
	return fmt.Sprintf("The data are being migrated to version %s; an update can begin when that is done.", u.store.data.Due.Release.Version)
}
