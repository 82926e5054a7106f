// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// Updater pretends to be an *update.Updater: it shows the snapshot it is given
// and writes down what it was asked.
type Updater struct {
	mu       sync.Mutex
	snap     update.Snapshot
	watchers map[chan struct{}]bool
	calls    []string
	fail     map[string]error
	release  update.Release
	history  []update.Result
	nextJob  uint64
	onAsk    func(call string)
}

// NewUpdater returns one that is idle in slot a.
func NewUpdater() *Updater {
	return &Updater{
		watchers: map[chan struct{}]bool{},
		fail:     map[string]error{},
		nextJob:  1,
		snap: update.Snapshot{
			State: update.StateIdle, Compatible: "acme-board", DeviceID: "4c4c4544", Groups: []string{"lab"}, Version: "1.0",
			Booted: "a", Primary: "a", Target: "b",
			Slots: []update.SlotRecord{
				{Slot: "a", Class: "rootfs", Digest: "sha256:aa", Size: 64 << 20, Version: "1.0", BuildID: "b1", Verified: true},
				{Slot: "b", Class: "rootfs", Size: 64 << 20},
			},
			Floors: update.Floors{Sequence: 30, Places: []string{update.FromDataDir, update.FromImage}, Time: time.Unix(1690000000, 0).UTC()},
		},
		release: update.Release{
			Digest: "sha256:dd", Version: "2.0", Sequence: 42, Floor: 7, Compatible: []string{"acme-board"},
			Created: time.Unix(1700000000, 0).UTC(), KeyIDs: []string{"k1"}, Target: "b", Mode: "store",
			Images:   []update.ReleaseImage{{Class: "rootfs", Size: 64 << 20, Digest: "sha256:bb", BuildID: "b2", Recipe: "delta", Download: 3 << 20}},
			Download: update.Cost{Minimum: 1 << 10, Expected: 3 << 20, Maximum: 40 << 20},
		},
	}
}

// Change alters the snapshot and tells whoever watches.
func (u *Updater) Change(f func(*update.Snapshot)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f(&u.snap)
	for w := range u.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// Job alters the job in hand.
func (u *Updater) Job(f func(*update.JobStatus)) {
	u.Change(func(s *update.Snapshot) {
		j := update.JobStatus{}
		if s.Job != nil {
			j = *s.Job
		}
		f(&j)
		s.Job = &j
		if j.State != "" {
			s.State = j.State
		}
	})
}

// Finish ends the job in hand.
func (u *Updater) Finish(r update.Result) {
	u.mu.Lock()
	u.history = append([]update.Result{r}, u.history...)
	u.mu.Unlock()
	u.Job(func(j *update.JobStatus) { j.Finished, j.Result, j.State = true, r, update.StateIdle })
	u.Change(func(s *update.Snapshot) { s.Last = &r })
}

// Fail makes a method, named as in "Install", answer with err.
func (u *Updater) Fail(method string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fail[method] = err
}

// OnCall has f called, without a lock, after each request that was accepted.
func (u *Updater) OnCall(f func(call string)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.onAsk = f
}

// Calls is what was asked, in order.
func (u *Updater) Calls() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.calls...)
}

func (u *Updater) ask(method, call string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calls = append(u.calls, call)
	return u.fail[method]
}

func (u *Updater) accepted(call string) {
	u.mu.Lock()
	f := u.onAsk
	u.mu.Unlock()
	if f != nil {
		f(call)
	}
}

func (u *Updater) Inspect(ctx context.Context, ref string, opt update.InstallOptions) (*update.Release, error) {
	if err := u.ask("Inspect", fmt.Sprintf("inspect %s %+v", ref, opt)); err != nil {
		return nil, err
	}
	r := u.release
	r.Ref = ref
	return &r, nil
}

func (u *Updater) Install(ctx context.Context, ref string, opt update.InstallOptions) (uint64, error) {
	call := fmt.Sprintf("install %s %+v", ref, opt)
	if err := u.ask("Install", call); err != nil {
		return 0, err
	}
	u.mu.Lock()
	id := u.nextJob
	u.nextJob++
	u.mu.Unlock()
	u.Job(func(j *update.JobStatus) {
		*j = update.JobStatus{ID: id, Ref: ref, Version: "2.0", State: update.StateDownloading,
			Progress: update.Progress{Stage: "download", Total: 3 << 20}}
	})
	u.accepted(call)
	return id, nil
}

func (u *Updater) control(method, call string, id uint64, f func(*update.JobStatus)) error {
	if err := u.ask(method, fmt.Sprintf("%s %d", call, id)); err != nil {
		return err
	}
	u.mu.Lock()
	known := u.snap.Job != nil && u.snap.Job.ID == id && !u.snap.Job.Finished
	u.mu.Unlock()
	if !known {
		return &update.Error{Name: update.NameBadState, Message: fmt.Sprintf("%s job %d: it has ended", call, id)}
	}
	u.Job(f)
	u.accepted(call)
	return nil
}

func (u *Updater) Cancel(id uint64) error {
	r := update.Result{Outcome: update.Cancelled, Error: update.NameCancelled, Message: "cancelled on request", Time: time.Unix(1700000100, 0)}
	return u.control("Cancel", "cancel", id, func(j *update.JobStatus) { j.Finished, j.Result = true, r })
}

func (u *Updater) Pause(id uint64) error {
	return u.control("Pause", "pause", id, func(j *update.JobStatus) { j.Paused = true })
}

func (u *Updater) Resume(id uint64) error {
	return u.control("Resume", "resume", id, func(j *update.JobStatus) { j.Paused = false })
}

func (u *Updater) Activate(context.Context) error { return u.ask("Activate", "activate") }
func (u *Updater) Reboot(context.Context) error   { return u.ask("Reboot", "reboot") }

func (u *Updater) Mark(_ context.Context, verdict string, slot bootctl.Slot) (string, error) {
	call := fmt.Sprintf("mark %s %s", verdict, slot)
	if err := u.ask("Mark", call); err != nil {
		return "", err
	}
	return "slot " + string(slot) + " is marked " + verdict, nil
}

// Check shows the channel that the snapshot has.
func (u *Updater) Check(context.Context) (*update.ChannelStatus, error) {
	if err := u.ask("Check", "check"); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.snap.Channel == nil {
		return nil, &update.Error{Name: update.NameBadState, Message: "no channel is configured"}
	}
	return u.snap.Channel, nil
}

func (u *Updater) Snapshot() update.Snapshot {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.snap
}

func (u *Updater) Watch(ctx context.Context) <-chan struct{} {
	w := make(chan struct{}, 1)
	u.mu.Lock()
	u.watchers[w] = true
	u.mu.Unlock()
	context.AfterFunc(ctx, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.watchers, w)
		close(w)
	})
	return w
}

func (u *Updater) History(limit int) ([]update.Result, error) {
	if err := u.ask("History", fmt.Sprintf("history %d", limit)); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if limit <= 0 {
		return nil, errors.New("internal error: history without a limit")
	}
	return append([]update.Result(nil), u.history[:min(limit, len(u.history))]...), nil
}
