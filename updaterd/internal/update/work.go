// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// work is what goes on beside the loop: at most one thing at a time.
type work struct {
	kind    EffectKind
	cancel  context.CancelFunc
	outcome chan Event    // progress, then one end
	done    chan struct{} // its goroutine has returned
	handled chan struct{} // its end was handled, or it was stopped; then err is set
	err     error
	release *Release // what was worked on; set before the end is sent
}

// begin starts the work that an effect asks for.
func (u *Updater) begin(parent context.Context, fx Effect) {
	u.stop()
	kind := fx.Kind
	ctx, cancel := context.WithCancel(parent)
	w := &work{kind: kind, cancel: cancel, outcome: make(chan Event), done: make(chan struct{}), handled: make(chan struct{})}
	u.work = w
	var run func(context.Context) Event
	switch kind {
	case DoCheck:
		u.o.Watchdog.Trial()
		run = func(ctx context.Context) Event { return u.judge(ctx, fx.First) }
	case DoMigrate:
		due := u.store.data
		run = func(ctx context.Context) Event { return u.migrate(ctx, due) }
	default:
		job, release := *u.j.Job, u.release
		u.meter.start(stageOf(kind))
		run = func(ctx context.Context) Event { return u.toil(ctx, kind, job, release, w) }
	}
	go func() {
		defer close(w.done)
		w.send(ctx, run(ctx))
	}()
}

// send drops what comes of work that was told to stop: a check that was
// interrupted has judged nothing, and must not roll a trial back.
func (w *work) send(ctx context.Context, e Event) {
	if ctx.Err() != nil {
		return
	}
	select {
	case w.outcome <- e:
	case <-ctx.Done():
	}
}

// stop ends the work, if any, and waits for it: after stop nobody writes a slot.
func (u *Updater) stop() {
	w := u.work
	if w == nil {
		return
	}
	u.work = nil
	w.cancel()
	<-w.done
	w.err = errorf(NameCancelled, "stopped before its end")
	close(w.handled)
}

// conclude handles what the work has to tell.
func (u *Updater) conclude(ctx context.Context, e Event) {
	w := u.work
	switch e.Kind {
	case EventProgressed:
		if err := u.handle(ctx, e); err != nil {
			u.o.Log.Error("handle outcome", "event", string(e.Kind), "err", err)
		}
		return
	case EventWritten, EventVerified:
		u.readBack = time.Now()
	case EventHealthy, EventUnhealthy:
		u.refresh() // the checks take time, and updater-bootctl needs no daemon
	}
	u.work = nil
	w.cancel()
	<-w.done
	if w.release != nil {
		u.release = w.release
	}
	w.err = u.handle(ctx, e)
	if w.err != nil {
		u.o.Log.Error("handle outcome", "event", string(e.Kind), "err", w.err)
	} else if e.Kind == EventFailed {
		w.err = errorf(e.Name, "%s", e.Reason)
	}
	u.publish() // before who waits for the end looks
	close(w.handled)
}

// fresh reports that the target was read back so recently that it need not be
// read again before it becomes primary.
func (u *Updater) fresh() bool {
	return !u.readBack.IsZero() && time.Since(u.readBack) < 10*time.Minute
}

func stageOf(kind EffectKind) string {
	switch kind {
	case DoDownload:
		return "download"
	case DoInstall:
		return "install"
	}
	return "verify"
}

// toil lets the engine work and says how it ended.
func (u *Updater) toil(ctx context.Context, kind EffectKind, job Job, release *Release, w *work) Event {
	if release == nil {
		r, err := u.o.Engine.Reopen(ctx, job.Ref, job.Digest, job.Target, job.Options)
		if err == nil {
			err = checkRelease(r, job.Digest, job.Target)
		}
		if err == nil {
			// Whoever wrote the journal is not believed about that.
			_, err = u.allowed(r, job.Options, u.Snapshot().Floors.Sequence)
		}
		if err != nil {
			return failure(err)
		}
		release = r
	}
	numbered := *release
	numbered.Job = job.ID
	release = &numbered
	w.release = release
	var mu sync.Mutex // the engine may report from several goroutines
	tenth := job.Mark
	report := func(p Progress) {
		if u.meter.update(p) {
			u.notify()
		}
		if p.Stage != stageOf(kind) || p.Total <= 0 || kind == DoVerify {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if t := int(float64(p.Done) / float64(p.Total) * 10); t > tenth {
			tenth = min(t, 10)
			w.send(ctx, Event{Kind: EventProgressed, Mark: tenth})
		}
	}
	var err error
	end := Event{}
	switch kind {
	case DoDownload:
		end.Kind = EventDownloaded
		err = u.o.Engine.Download(ctx, release, report)
	case DoInstall:
		end.Kind = EventWritten
		end.Stats, err = u.o.Engine.Install(ctx, release, report)
	default:
		end.Kind = EventVerified
		err = u.o.Engine.Verify(ctx, release, report)
	}
	if err != nil {
		return failure(err)
	}
	return end
}

func failure(err error) Event {
	return Event{Kind: EventFailed, Name: nameOf(err), Reason: clip(err.Error())}
}

// judge checks the new system under the deadline. The first check of a start gets
// the time that it needs, however slow the start was.
func (u *Updater) judge(parent context.Context, first bool) Event {
	// Checks that ignore the deadline must not put off the verdict for ever.
	const grace = 10 * time.Second
	left := u.o.Deadline
	if u.o.Uptime != nil {
		left -= u.o.Uptime()
	}
	within := u.o.Deadline.String()
	if least := min(u.o.MinCheck, u.o.Deadline); first && left < least {
		left = least
		within = fmt.Sprintf("the %s that a slow start left them", left)
	}
	ctx, cancel := context.WithTimeout(parent, left)
	defer cancel()
	verdict := make(chan error, 1)
	go func() { verdict <- u.o.Health.Check(ctx, u.o.Watchdog.Alive) }()
	var err error
	select {
	case err = <-verdict:
	case <-ctx.Done():
		late := time.NewTimer(grace)
		defer late.Stop()
		select {
		case err = <-verdict:
		case <-late.C:
			err = errors.New("the checks do not end")
		}
	}
	switch {
	case err == nil:
		return Event{Kind: EventHealthy}
	case ctx.Err() != nil && parent.Err() == nil:
		return Event{Kind: EventUnhealthy, Reason: clip(fmt.Sprintf("health checks had not passed within %s: %v", within, err))}
	}
	return Event{Kind: EventUnhealthy, Reason: clip(err.Error())}
}
