// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Snapshot is the whole visible state.
func (u *Updater) Snapshot() Snapshot {
	u.mu.Lock()
	s, waiting := u.shown, u.waiting
	if s.Channel != nil {
		s.Channel = s.Channel.at(later(time.Now(), s.Floors.Time), u.unchecked)
	}
	u.mu.Unlock()
	if s.Channel != nil && s.Channel.refused() != nil {
		s.Problems = append(slices.Clone(s.Problems), s.Channel.refused().Error())
	}
	if waiting != "" && s.Job != nil && !s.Job.Finished {
		s.Problems = append(slices.Clone(s.Problems), waiting)
	}
	if s.Job != nil {
		job := *s.Job
		if !job.Finished {
			job.Waiting = waiting
			job.Progress, job.Rate, job.TimeLeft = u.meter.read()
			if job.Paused {
				job.Rate, job.TimeLeft = 0, 0
			}
		}
		s.Job = &job
	}
	return s
}

// Waiting tells why the network does not get on, and nil once it does. It is
// shown while a job is in hand.
func (u *Updater) Waiting(why error) {
	text := ""
	if why != nil {
		text = clip(fmt.Sprintf("The download waits for the network: %v", why))
	}
	u.mu.Lock()
	news := text != u.waiting
	u.waiting = text
	u.mu.Unlock()
	if !news {
		return
	}
	if text != "" {
		u.o.Log.Warn("waiting for the network", "err", why)
	}
	u.notify()
}

// publish shows what the loop knows to those outside it.
func (u *Updater) publish() {
	s := Snapshot{State: u.j.State, Compatible: u.o.Compatible, DeviceID: u.o.DeviceID, Groups: u.o.Groups, Version: u.o.Version, Booted: u.booted,
		Target: u.booted.Other(), Slots: slices.Clone(u.store.slots.Records), Floors: u.effective(), Problems: u.allProblems(), Migrating: u.migrating() != ""}
	if u.statusErr == nil {
		b := u.status
		s.Primary, s.Trial, s.TriesLeft, s.Bad = b.Primary, b.Trial, b.TriesLeft, slices.Clone(b.Bad)
	}
	if u.j.Last != nil {
		last := *u.j.Last
		s.Last = &last
	}
	switch job := u.j.Job; {
	case job != nil:
		s.Target = job.Target
		s.Job = &JobStatus{ID: job.ID, Ref: job.Ref, Version: job.Version, State: u.j.State, Paused: job.Paused}
	case s.Last != nil:
		s.Job = u.finished(*s.Last)
	}
	s.Channel = u.channelStatus()
	u.mu.Lock()
	u.shown = s
	u.records, u.history = u.store.slots, u.store.history
	u.foresee(s.Channel, s.Floors.Time)
	u.mu.Unlock()
	u.notify()
}

// finished is the last job as it was when it ended.
func (u *Updater) finished(r Result) *JobStatus {
	j := &JobStatus{ID: r.Job, Version: r.Version, State: StateIdle, Finished: true, Result: r}
	u.mu.Lock()
	defer u.mu.Unlock()
	if was := u.shown.Job; was != nil && was.ID == r.Job {
		j.Ref = was.Ref
		if j.Progress = was.Progress; !was.Finished {
			j.Progress, _, _ = u.meter.read()
		}
	}
	return j
}

// allProblems lists what keeps Install from working, and what else went wrong.
func (u *Updater) allProblems() []string {
	var out []string
	for _, err := range []error{u.bootedError(), u.environmentError()} {
		if err != nil {
			out = append(out, err.Error())
		}
	}
	if u.statusErr == nil {
		out = append(out, u.status.Problems...)
	}
	if u.booted != "" {
		if err := u.canaryError(); err != nil {
			out = append(out, err.Error())
		}
	}
	if m := u.migrating(); m != "" {
		out = append(out, m)
	}
	out = append(out, u.store.problems...)
	if u.problem != "" {
		out = append(out, u.problem)
	}
	return append(out, u.alarms...)
}

// Watch returns a channel that receives after changes of the snapshot (several
// changes may be one receive) and is closed when ctx ends.
func (u *Updater) Watch(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	u.mu.Lock()
	u.watchers[c] = struct{}{}
	u.mu.Unlock()
	context.AfterFunc(ctx, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.watchers, c)
		close(c)
	})
	return c
}

func (u *Updater) notify() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.watchers {
		select {
		case c <- struct{}{}:
		default: // one is waiting there already
		}
	}
}

// History returns the latest results, newest first; limit 0 means all that are kept.
func (u *Updater) History(limit int) ([]Result, error) {
	if limit < 0 {
		return nil, errorf(NameBadArgument, "limit %d is negative", limit)
	}
	u.mu.Lock()
	h := slices.Clone(u.history)
	u.mu.Unlock()
	slices.Reverse(h)
	if limit > 0 && len(h) > limit {
		h = h[:limit]
	}
	return h, nil
}

// Now is the later one of the clock and the time floor: a device without a clock
// of its own starts in 1970.
func (u *Updater) Now() time.Time { return later(time.Now(), u.TimeFloor()) }

// TimeFloor is the earliest time that it can be now.
func (u *Updater) TimeFloor() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.shown.Floors.Time
}

// Records tells what each slot holds, as far as it is known.
func (u *Updater) Records() []SlotRecord {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.records.Records)
}
