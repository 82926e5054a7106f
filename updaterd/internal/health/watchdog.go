// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// WatchdogOptions names the watchdogs to feed. The zero value feeds none.
type WatchdogOptions struct {
	// Device is the hardware watchdog, such as /dev/watchdog; "" if systemd
	// (RuntimeWatchdogSec) or nobody has it. Opening it starts it.
	Device string
	// Timeout is set on the device, in whole seconds.
	Timeout time.Duration
	// Socket and ServiceTimeout are systemd's NOTIFY_SOCKET and WATCHDOG_USEC;
	// either may be zero.
	Socket         string
	ServiceTimeout time.Duration
	// Grace is how long feeding goes on in a trial without a call of Alive;
	// 0 means Timeout. See Options.Grace.
	Grace time.Duration
	// Report, if not nil, is told when feeding fails and nil when it works again.
	Report func(error)
}

const (
	// lingering is what the device's time-out becomes when the daemon stops: an
	// orderly shutdown, which may wait 90 seconds for one service alone, must not
	// be cut by a reset in the middle of its unmounting.
	lingering = 5 * time.Minute
	// lingerStep is how much less is asked of a driver that refuses that.
	lingerStep = 30 * time.Second
)

// Watchdog feeds what has to be fed. Its methods may be called from any goroutine.
type Watchdog struct {
	feeders []feeder
	device  device        // nil if there is none
	timeout time.Duration // that of the device
	every   time.Duration
	grace   time.Duration
	report  func(error)

	mu      sync.Mutex
	trial   bool
	alive   time.Time
	failing bool
}

// A feeder is one watchdog that has to be fed.
type feeder func() error

// OpenWatchdog opens the device and sets its time-out, whatever the daemon before
// has left. From then on it has to be fed, see Start: many drivers cannot be
// stopped again.
func OpenWatchdog(o WatchdogOptions) (*Watchdog, error) {
	if o.Device == "" {
		return newWatchdog(o, nil)
	}
	d, err := openDevice(o.Device)
	if err != nil {
		return nil, fmt.Errorf("open watchdog %s: %w; if systemd feeds it (RuntimeWatchdogSec), leave the device empty", o.Device, err)
	}
	w, err := newWatchdog(o, d)
	if err != nil {
		d.MagicClose()
		return nil, fmt.Errorf("open watchdog %s: %w", o.Device, err)
	}
	return w, nil
}

func newWatchdog(o WatchdogOptions, d device) (*Watchdog, error) {
	w := &Watchdog{device: d, grace: o.Grace, report: o.Report}
	if d != nil {
		if o.Timeout < time.Second || o.Timeout%time.Second != 0 {
			return nil, fmt.Errorf("the time-out %v is not a whole number of seconds", o.Timeout)
		}
		actual, err := d.setTimeout(o.Timeout)
		if err != nil {
			return nil, err
		}
		w.timeout, w.every = actual, actual/3
		w.grace = max(w.grace, actual)
		w.feeders = append(w.feeders, d.KeepAlive)
	}
	if o.Socket != "" && o.ServiceTimeout > 0 {
		service := o.ServiceTimeout / 3
		if w.every == 0 || service < w.every {
			w.every = service
		}
		w.grace = max(w.grace, o.ServiceTimeout)
		w.feeders = append(w.feeders, func() error { return Notify(o.Socket, "WATCHDOG=1") })
	}
	return w, nil
}

// Start feeds, three times per time-out, until stop is called. When ctx ends the
// daemon is about to stop, which takes as long as the work at hand: feeding goes on,
// with a longer time-out, which holds even if the daemon is killed before it is done.
// stop feeds a last time and closes the device, but leaves it running: a daemon
// that is started again goes on feeding, and one that does not come back costs a
// reset.
func (w *Watchdog) Start(ctx context.Context) (stop func()) {
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		w.run(ctx, ending)
	}()
	return sync.OnceFunc(func() {
		close(ending)
		<-ended
		if w.device != nil {
			w.device.Close() // nothing was written that could be lost
		}
	})
}

func (w *Watchdog) run(ctx context.Context, ending <-chan struct{}) {
	if len(w.feeders) == 0 {
		<-ending
		return
	}
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	stopping := ctx.Done()
	for {
		w.feed()
		select {
		case <-ending:
			w.linger()
			w.feed() // some drivers take a new time-out only then
			return
		case <-stopping:
			w.linger()
			stopping = nil
		case <-tick.C:
		}
	}
}

// linger makes the device's time-out as long as the driver takes it, up to
// lingering. It does so in a trial as well: a system that goes down in good order
// is none that hangs, and if it hangs on the way, the reset still comes. But a
// trial whose checks have stopped is being given up, and gets no more time.
// No refusal is an error: then the shutdown has the time that there was.
func (w *Watchdog) linger() {
	if w.device == nil || w.timeout >= lingering || w.starving() {
		return
	}
	for longer := lingering; longer > w.timeout; longer -= lingerStep {
		// Not every driver refuses what it cannot do: some set their default.
		if actual, err := w.device.setTimeout(longer); err == nil && actual >= w.timeout {
			return
		}
	}
	w.device.setTimeout(w.timeout)
}

func (w *Watchdog) feed() {
	if w.starving() {
		return
	}
	var failed error
	for _, feed := range w.feeders {
		if err := feed(); err != nil {
			failed = fmt.Errorf("feed watchdog: %w", err)
		}
	}
	// Only changes are told: this runs for years.
	if w.report != nil && (failed != nil) != w.failing {
		w.report(failed)
	}
	w.failing = failed != nil
}

func (w *Watchdog) starving() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.trial && time.Since(w.alive) > w.grace
}

// Trial makes feeding depend on Alive, beginning with a full grace.
func (w *Watchdog) Trial() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trial, w.alive = true, time.Now()
}

// Alive is a sign of life from the checks.
func (w *Watchdog) Alive() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alive = time.Now()
}

// Settled ends the trial: feeding goes on for good.
func (w *Watchdog) Settled() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trial = false
}
