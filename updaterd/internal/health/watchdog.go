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

// Watchdog feeds what has to be fed. Its methods may be called from any goroutine.
type Watchdog struct {
	feeders []feeder
	device  device // nil if there is none
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

// OpenWatchdog opens the device and sets its time-out. From then on Run must be
// running, and nothing may stop it: many drivers cannot be stopped again.
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
		w.every = actual / 3
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

// Run feeds until ctx ends, three times per time-out. It leaves the device
// running: what happens then is for Close or Disarm to say.
func (w *Watchdog) Run(ctx context.Context) {
	if len(w.feeders) == 0 {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		w.feed()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
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

// Close closes the device and leaves it running, so that a daemon that is
// restarted in time goes on feeding, and one that is not costs a reboot.
func (w *Watchdog) Close() error {
	if w.device == nil {
		return nil
	}
	return w.device.Close()
}

// Disarm stops the device, if its driver allows that, and closes it. In a trial
// it only closes: nobody may talk himself out of the watchdog then.
func (w *Watchdog) Disarm() error {
	w.mu.Lock()
	trial := w.trial
	w.mu.Unlock()
	if w.device == nil || trial {
		return w.Close()
	}
	return w.device.MagicClose()
}
