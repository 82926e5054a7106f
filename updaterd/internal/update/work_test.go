// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
)

// TestInterruptedWorkTellsNothing: a daemon that is told to end in a trial has
// not judged it, however its checks end and whoever is listening.
func TestInterruptedWorkTellsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := &work{outcome: make(chan Event, 1)}
	for range 100 {
		w.send(ctx, Event{Kind: EventUnhealthy})
	}
	if len(w.outcome) != 0 {
		t.Fatal("an interrupted check was taken for a verdict")
	}
	w.send(t.Context(), Event{Kind: EventUnhealthy})
	if len(w.outcome) != 1 {
		t.Fatal("a verdict was lost")
	}
}

// What a job waits for is seen while it is in hand, and only then.
func TestWaitingForTheNetworkIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		l := start(t, w, func(_ *Options, e *engine) {
			e.gate = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		})
		idle := len(l.Snapshot().Problems)
		l.Waiting(errors.New("nobody there"))
		if got := l.Snapshot().Problems; len(got) != idle {
			t.Errorf("problems without a job: %q", got)
		}
		id, err := l.Install(l.ctx, ref, InstallOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c := l.Watch(l.ctx)
		l.Waiting(errors.New("is there a login page?"))
		<-c
		if got := l.Snapshot().Problems; len(got) != idle+1 || !strings.Contains(got[idle], "is there a login page?") {
			t.Errorf("problems while the job waits: %q", got)
		}
		if got := l.Snapshot().Job.Waiting; !strings.Contains(got, "is there a login page?") {
			t.Errorf("the job waits for %q", got)
		}
		l.Waiting(nil)
		if s := l.Snapshot(); len(s.Problems) != idle || s.Job.Waiting != "" {
			t.Errorf("once it goes on: %q, the job waits for %q", s.Problems, s.Job.Waiting)
		}
		l.Waiting(errors.New("nobody there"))
		if err := l.Cancel(id); err != nil {
			t.Fatal(err)
		}
		if got := l.Snapshot().Problems; len(got) != idle {
			t.Errorf("problems after the job: %q", got)
		}
		l.end()
	})
}
