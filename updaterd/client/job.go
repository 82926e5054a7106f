// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/godbus/dbus/v5"
)

// A Job is one install, under way or over.
type Job struct {
	client         *Client
	path           dbus.ObjectPath
	staysInstalled bool          // its state installed is where it stops
	settle         time.Duration // 0 is defaultSettle
}

// defaultSettle is how long a job may be installed before it is taken to wait
// for Activate; one that is activated by itself leaves that state sooner.
const defaultSettle = 10 * time.Second

// returnTimeout is how long a daemon that went away may take to come back.
const returnTimeout = 30 * time.Second

// Path is the job's object on the bus.
func (j *Job) Path() string { return string(j.path) }

// ID is the job's number.
func (j *Job) ID() uint64 { return dict{}.job(j.path).Job }

// Status returns how far the job has come.
func (j *Job) Status(ctx context.Context) (*JobStatus, error) {
	return j.client.jobStatus(ctx, j.path)
}

// Cancel ends the job; the target slot stays unbootable until the next install.
func (j *Job) Cancel(ctx context.Context) error { return j.control(ctx, "Cancel") }

// Pause stops the job until Resume, over restarts and reboots too.
func (j *Job) Pause(ctx context.Context) error { return j.control(ctx, "Pause") }

// Resume lets a paused job go on where it was.
func (j *Job) Resume(ctx context.Context) error { return j.control(ctx, "Resume") }

func (j *Job) control(ctx context.Context, what string) error {
	return j.client.call(ctx, j.path, jobName+"."+what, nil)
}

// Progress yields the job's status now and after each change. It ends after the
// status in which the job has finished or waits for a person: installed, where
// that is as far as it goes, or pending-reboot. A daemon that is restarted
// meanwhile is waited for; an error ends the sequence.
func (j *Job) Progress(ctx context.Context) iter.Seq2[*JobStatus, error] {
	return func(yield func(*JobStatus, error) bool) {
		w, err := j.client.watch(ctx, j.path)
		if err != nil {
			yield(nil, err)
			return
		}
		defer j.client.unwatch(w)
		var last *JobStatus
		var gone time.Time // since when the daemon does not answer
		for {
			status, err := j.Status(ctx)
			var wait time.Duration
			switch {
			case err == nil:
				gone = time.Time{}
				if last == nil || *status != *last {
					if !yield(status, nil) {
						return
					}
				}
				last = status
				if j.over(status) {
					return
				}
				if status.State == Installed {
					wait = j.settleTime()
				}
			case NameOf(err) == Unreachable && j.client.conn.Connected() && last != nil && (gone.IsZero() || time.Since(gone) < returnTimeout):
				if gone.IsZero() {
					gone = time.Now()
				}
				wait = time.Second
			default:
				yield(nil, err)
				return
			}
			timedOut, err := w.wait(ctx, wait)
			if err != nil {
				yield(nil, err)
				return
			}
			if timedOut && gone.IsZero() {
				return // installed, and nothing more happens by itself
			}
		}
	}
}

// over reports whether nothing more happens by itself.
func (j *Job) over(s *JobStatus) bool {
	return s.Finished() || s.State == PendingReboot || s.State == Installed && j.staysInstalled
}

func (j *Job) settleTime() time.Duration {
	if j.settle > 0 {
		return j.settle
	}
	return defaultSettle
}

// Wait returns the status with which Progress ends. A job that failed is not
// an error of Wait: ask the status for its Err.
func (j *Job) Wait(ctx context.Context) (*JobStatus, error) {
	var last *JobStatus
	for status, err := range j.Progress(ctx) {
		if err != nil {
			return last, err
		}
		last = status
	}
	return last, nil
}

// A watcher hears that something about one object may have changed.
type watcher struct {
	path   dbus.ObjectPath
	change chan struct{} // holds one
	closed chan struct{} // the connection has ended
}

// wait returns at the next change, or after timeout unless that is 0.
func (w *watcher) wait(ctx context.Context, timeout time.Duration) (timedOut bool, err error) {
	var after <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-w.closed:
		return false, &Error{Name: Unreachable, Message: "watch a job: the message bus closed the connection", cause: errors.New("bus lost")}
	case <-after:
		return true, nil
	case <-w.change:
		return false, nil
	}
}

// watch begins to listen. The rules stay in place until Close.
func (c *Client) watch(ctx context.Context, path dbus.ObjectPath) (*watcher, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.watching {
		err := c.conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(busName), dbus.WithMatchPathNamespace(managerPath))
		if err == nil {
			err = c.conn.AddMatchSignalContext(ctx, dbus.WithMatchSender("org.freedesktop.DBus"),
				dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, busName))
		}
		if err != nil {
			return nil, wrap(ctx, err)
		}
		c.watching = true
	}
	w := &watcher{path: path, change: make(chan struct{}, 1), closed: c.dispatched}
	c.watchers[w] = true
	return w, nil
}

func (c *Client) unwatch(w *watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.watchers, w)
}

// dispatch wakes whoever watches. Signals say only that something changed: what
// it is now is asked of the daemon, so nobody else can make it up.
func (c *Client) dispatch(signals <-chan *dbus.Signal) {
	defer close(c.dispatched)
	for signal := range signals {
		c.mu.Lock()
		for w := range c.watchers {
			if signal.Path == w.path || signal.Name == "org.freedesktop.DBus.NameOwnerChanged" {
				select {
				case w.change <- struct{}{}:
				default:
				}
			}
		}
		c.mu.Unlock()
	}
}
