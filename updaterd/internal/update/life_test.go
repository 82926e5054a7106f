// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// life is one life of the daemon in a test that needs no schedule.
type life struct {
	*Updater
	t      *testing.T
	m      *machine
	e      *engine
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}
}

// start boots w and runs the daemon until end is called.
func start(t *testing.T, w *world, change func(*Options, *engine)) *life {
	t.Helper()
	m, err := w.boot()
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, w, m, change)
}

// startOn starts the daemon, perhaps again, without a boot.
func startOn(t *testing.T, w *world, m *machine, change func(*Options, *engine)) *life {
	t.Helper()
	l := &life{t: t, m: m, e: &engine{w: w}, ended: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	m.end = func() {}
	o := w.options(m, l.e)
	if change != nil {
		change(&o, l.e)
	}
	l.Updater = newUpdater(validOptions(o), w, w.floorStore())
	go func() { l.Run(l.ctx); close(l.ended) }()
	<-l.Ready()
	return l
}

func (l *life) end() {
	l.cancel()
	<-l.ended
}

// reach waits until the daemon has nothing to do in this state.
func (l *life) reach(want State) Snapshot {
	l.t.Helper()
	for range 100 {
		synctest.Wait()
		s := l.Snapshot()
		if s.State == want {
			return s
		}
		time.Sleep(time.Second)
	}
	l.t.Fatalf("state is %s, not %s: %+v", l.Snapshot().State, want, l.Snapshot().Problems)
	return Snapshot{}
}

func wantName(t *testing.T, what string, err error, name string) {
	t.Helper()
	if err == nil || nameOf(err) != name {
		t.Errorf("%s = %v; want the name %s", what, err, name)
	}
}
