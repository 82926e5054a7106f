// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dog is a watchdog that bites if it is not fed within its time-out.
type dog struct {
	mu      sync.Mutex
	timeout time.Duration
	fixed   bool          // the time-out cannot be set
	most    time.Duration // the longest that is taken; 0: any
	fallen  time.Duration // if not 0, what a longer one is taken as
	fed     time.Time
	meals   int
	bitten  time.Time
	broken  error
	closed  bool
}

// state says how often the dog was fed and when it bit, if it did.
func (d *dog) state() (meals int, bitten time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look()
	return d.meals, d.bitten
}

func (d *dog) breakDown(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = err
}

func (d *dog) look() {
	if d.bitten.IsZero() && !d.fed.IsZero() && time.Since(d.fed) > d.timeout {
		d.bitten = d.fed.Add(d.timeout)
	}
}

func (d *dog) KeepAlive() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.broken
	}
	d.look()
	d.fed = time.Now()
	d.meals++
	return nil
}

func (d *dog) MagicClose() error { return errors.New("nobody may stop it") }

func (d *dog) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

// setTimeout feeds too, as the kernel's drivers do.
func (d *dog) setTimeout(t time.Duration) (time.Duration, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look()
	switch {
	case d.fixed:
		return d.timeout, nil
	case d.most == 0 || t <= d.most:
		d.timeout = t
	case d.fallen == 0:
		return 0, errors.New("invalid argument")
	default:
		d.timeout = d.fallen
	}
	d.fed = time.Now()
	return d.timeout, nil
}

// kennel starts a watchdog over d that is fed until the test ends.
func kennel(t *testing.T, d *dog, o WatchdogOptions) *Watchdog {
	t.Helper()
	w, err := newWatchdog(o, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Start(t.Context()))
	synctest.Wait()
	return w
}

func TestFeedingForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dog{}
		kennel(t, d, WatchdogOptions{Timeout: 30 * time.Second})
		time.Sleep(24 * time.Hour)
		if meals, bitten := d.state(); !bitten.IsZero() || meals != 24*360 && meals != 24*360+1 {
			t.Errorf("%d meals, bitten %v; want one meal every 10s", meals, bitten)
		}
	})
}

func TestTrial(t *testing.T) {
	const timeout, grace = 30 * time.Second, 50 * time.Second
	for _, tc := range []struct {
		name string
		run  func(w *Watchdog)
		bite bool
	}{
		{"progress all the time", func(w *Watchdog) {
			for range 100 {
				time.Sleep(grace)
				w.Alive()
			}
		}, false},
		{"no sign of life", func(*Watchdog) { time.Sleep(2*grace + timeout) }, true},
		{"life stops in the middle", func(w *Watchdog) {
			time.Sleep(grace)
			w.Alive()
			time.Sleep(2*grace + timeout)
		}, true},
		{"settled before the grace is over", func(w *Watchdog) {
			time.Sleep(grace)
			w.Settled()
			time.Sleep(24 * time.Hour)
		}, false},
		{"the grace alone", func(*Watchdog) { time.Sleep(grace) }, false},
		{"late, but before the dog bites", func(w *Watchdog) {
			time.Sleep(grace + 10*time.Second)
			w.Alive()
			time.Sleep(grace)
			w.Settled()
			time.Sleep(time.Hour)
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &dog{}
				w := kennel(t, d, WatchdogOptions{Timeout: timeout, Grace: grace})
				time.Sleep(time.Hour)
				w.Trial()
				start := time.Now()
				tc.run(w)
				if _, bitten := d.state(); bitten.IsZero() == tc.bite {
					t.Fatalf("bitten %v after the trial began (%v); want a bite: %v", bitten.Sub(start), bitten, tc.bite)
				}
			})
		})
	}
}

// A daemon that is told to stop, stops after its work at hand; whatever the system
// does then has minutes. Only then a daemon that has not come back costs a reset.
func TestOrderlyStop(t *testing.T) {
	const timeout, work = 30 * time.Second, 4 * time.Minute
	for _, tc := range []struct {
		name  string
		dog   *dog
		trial bool
		want  time.Duration // from the end of the work to the bite
	}{
		{"confirmed", &dog{}, false, 5 * time.Minute},
		{"in a trial", &dog{}, true, 5 * time.Minute},
		{"a driver that takes 128s", &dog{most: 128 * time.Second}, false, 2 * time.Minute},
		{"a driver that takes no more", &dog{most: timeout}, false, timeout},
		{"a driver with a default of 60s", &dog{most: timeout, fallen: time.Minute}, false, time.Minute},
		{"a driver with a default of 10s", &dog{most: timeout, fallen: 10 * time.Second}, false, timeout},
		{"a fixed time-out", &dog{timeout: time.Minute, fixed: true}, false, time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := tc.dog
				w, err := newWatchdog(WatchdogOptions{Timeout: timeout, Grace: time.Hour}, d)
				if err != nil {
					t.Fatal(err)
				}
				if tc.trial {
					w.Trial()
				}
				ctx, cancel := context.WithCancel(t.Context())
				stop := w.Start(ctx)
				time.Sleep(time.Minute + time.Second)
				cancel()
				time.Sleep(work)
				stop()
				if !d.closed {
					t.Error("the device is still open")
				}
				time.Sleep(tc.want)
				if _, bitten := d.state(); !bitten.IsZero() {
					t.Errorf("bitten %v before the daemon was expected back", time.Since(bitten))
				}
				time.Sleep(time.Second)
				if _, bitten := d.state(); bitten.IsZero() {
					t.Error("nobody comes back, and there is no reset")
				}
			})
		})
	}
}

// What kills a daemon that takes too long to stop does not cut the shutdown either.
func TestKilledWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dog{}
		w, err := newWatchdog(WatchdogOptions{Timeout: 30 * time.Second}, d)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stop := w.Start(ctx)
		defer stop()
		cancel()
		synctest.Wait()
		d.breakDown(errors.New("killed"))
		time.Sleep(4 * time.Minute)
		if _, bitten := d.state(); !bitten.IsZero() {
			t.Errorf("bitten %v after the last meal", bitten.Sub(d.fed))
		}
	})
}

// A trial whose checks make no progress is being given up: no stop delays that.
func TestStopOfAHangingTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dog{}
		w, err := newWatchdog(WatchdogOptions{Timeout: 30 * time.Second, Grace: time.Minute}, d)
		if err != nil {
			t.Fatal(err)
		}
		w.Trial()
		ctx, cancel := context.WithCancel(t.Context())
		stop := w.Start(ctx)
		time.Sleep(time.Minute + 15*time.Second)
		cancel()
		synctest.Wait()
		stop()
		time.Sleep(16 * time.Second)
		if _, bitten := d.state(); bitten.IsZero() {
			t.Error("the stop has put the reset off")
		}
	})
}

// The next daemon has the time-out of its configuration, not the one that was left.
func TestTheNextDaemonSetsItsTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dog{}
		w, err := newWatchdog(WatchdogOptions{Timeout: 30 * time.Second}, d)
		if err != nil {
			t.Fatal(err)
		}
		w.Start(t.Context())()
		left := d.timeout
		if _, err := newWatchdog(WatchdogOptions{Timeout: 30 * time.Second}, d); err != nil || left != lingering || d.timeout != 30*time.Second {
			t.Errorf("left %v, next %v, %v; want 5m, then 30s", left, d.timeout, err)
		}
	})
}

func TestTheDriversTimeOutHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dog{timeout: 6 * time.Second, fixed: true}
		kennel(t, d, WatchdogOptions{Timeout: 30 * time.Second})
		time.Sleep(time.Minute)
		if _, bitten := d.state(); !bitten.IsZero() {
			t.Error("a watchdog with a fixed time-out of 6s was fed as if it had 30s")
		}
	})
}

func TestReportsChangesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := make(chan error, 100)
		d := &dog{}
		kennel(t, d, WatchdogOptions{Timeout: 3 * time.Second, Report: func(err error) { reports <- err }})
		for _, err := range []error{nil, errors.New("no such device"), nil} {
			d.breakDown(err)
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		var told []error
		for range len(reports) {
			told = append(told, <-reports)
		}
		if len(told) != 2 || told[0] == nil || told[1] != nil {
			t.Errorf("told %v; want one error, then nil", told)
		}
	})
}

func TestWatchdogOptions(t *testing.T) {
	for _, timeout := range []time.Duration{0, -time.Second, time.Millisecond, 1500 * time.Millisecond} {
		if w, err := newWatchdog(WatchdogOptions{Timeout: timeout}, &dog{}); err == nil || w != nil {
			t.Errorf("time-out %v = %v, %v; want an error", timeout, w, err)
		}
	}
	if w, err := OpenWatchdog(WatchdogOptions{Device: filepath.Join(t.TempDir(), "none"), Timeout: time.Second}); err == nil || w != nil {
		t.Errorf("OpenWatchdog of nothing = %v, %v; want an error", w, err)
	}
	if w, err := OpenWatchdog(WatchdogOptions{Device: "/dev/null", Timeout: time.Second}); err == nil || w != nil {
		t.Errorf("OpenWatchdog(/dev/null) = %v, %v; want an error", w, err)
	}
}

func TestNothingToFeed(t *testing.T) {
	w, err := OpenWatchdog(WatchdogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	stop := w.Start(ctx)
	w.Trial()
	w.Alive()
	w.Settled()
	stop()
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	read := func() string {
		b := make([]byte, 100)
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if err := Notify(path, "READY=1\nSTATUS=idle"); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != "READY=1\nSTATUS=idle" {
		t.Errorf("received %q", got)
	}
	if err := Notify("", "READY=1"); err != nil {
		t.Errorf("Notify without a socket = %v", err)
	}
	if err := Notify(path+"-missing", "READY=1"); err == nil {
		t.Error("Notify to a missing socket succeeded")
	}

	// The service watchdog goes the same way.
	w, err := OpenWatchdog(WatchdogOptions{Socket: path, ServiceTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	stop := w.Start(t.Context())
	if got := read(); got != "WATCHDOG=1" {
		t.Errorf("received %q", got)
	}
	stop()
}
