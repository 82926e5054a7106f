// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// script is a systemd whose units change with the time since it was made.
type script struct {
	start    time.Time
	unit     func(name string, at time.Duration) (Unit, error)
	stopping func(at time.Duration) (bool, error) // nil: it is not
}

func (s script) Unit(_ context.Context, name string) (Unit, error) {
	return s.unit(name, time.Since(s.start))
}

func (s script) Stopping(context.Context) (bool, error) {
	if s.stopping == nil {
		return false, nil
	}
	return s.stopping(time.Since(s.start))
}

func loaded(active, sub string) Unit {
	return Unit{LoadState: "loaded", ActiveState: active, SubState: sub}
}

func TestUnits(t *testing.T) {
	running := loaded("active", "running")
	for _, tc := range []struct {
		name string
		unit func(name string, at time.Duration) (Unit, error)
		boot bool
		want string        // "" = healthy
		took time.Duration // of fake time
	}{
		{name: "active from the start", took: 10 * time.Second,
			unit: func(string, time.Duration) (Unit, error) { return running, nil }},
		{name: "active after a while", took: 40 * time.Second,
			unit: func(_ string, at time.Duration) (Unit, error) {
				if at < 30*time.Second {
					return loaded("activating", "start"), nil
				}
				return running, nil
			}},
		{name: "reloading counts as active", took: 10 * time.Second,
			unit: func(string, time.Duration) (Unit, error) { return loaded("reloading", "reload"), nil }},
		{name: "one restart at the start is forgiven", took: 23 * time.Second,
			unit: func(_ string, at time.Duration) (Unit, error) {
				u := running
				if at >= 13*time.Second-time.Second/2 {
					u.Restarts, u.Invocation = 1, "second"
				}
				if at > 8*time.Second && u.Restarts == 0 {
					u.ActiveState, u.SubState = "activating", "auto-restart"
				}
				return u, nil
			}},
		{name: "crash loop that always looks active", took: time.Minute,
			want: "unit app.service kept restarting (11 automatic restarts) and had not stayed up for 10s when the deadline came",
			unit: func(_ string, at time.Duration) (Unit, error) {
				u := running
				u.Restarts = uint32(at / (5 * time.Second))
				return u, nil
			}},
		{name: "restarted by hand over and over", took: time.Minute, want: "kept restarting",
			unit: func(_ string, at time.Duration) (Unit, error) {
				u := running
				u.Invocation = fmt.Sprint(at / (7 * time.Second))
				return u, nil
			}},
		{name: "failed", took: restartDelay, want: "unit app.service failed (exit-code)",
			unit: func(string, time.Duration) (Unit, error) {
				u := loaded("failed", "failed")
				u.Result = "exit-code"
				return u, nil
			}},
		{name: "fails within the minimum uptime", took: 9*time.Second + restartDelay, want: "unit app.service failed",
			unit: func(_ string, at time.Duration) (Unit, error) {
				if at > 8*time.Second {
					return loaded("failed", "failed"), nil
				}
				return running, nil
			}},
		{name: "not installed", took: restartDelay, want: "unit app.service cannot be started: systemd says not-found",
			unit: func(string, time.Duration) (Unit, error) {
				return Unit{LoadState: "not-found", ActiveState: "inactive"}, nil
			}},
		{name: "masked", took: restartDelay, want: "systemd says masked",
			unit: func(string, time.Duration) (Unit, error) {
				return Unit{LoadState: "masked", ActiveState: "inactive"}, nil
			}},
		{name: "never comes up", took: time.Minute, want: "unit app.service was still inactive (dead) when the deadline came",
			unit: func(string, time.Duration) (Unit, error) { return loaded("inactive", "dead"), nil }},
		{name: "systemd does not answer", took: time.Minute, want: "the state of unit app.service was still unknown (nobody there) when the deadline came",
			unit: func(string, time.Duration) (Unit, error) { return Unit{}, errors.New("nobody there") }},
		{name: "systemd answers late", took: 15 * time.Second,
			unit: func(_ string, at time.Duration) (Unit, error) {
				if at < 5*time.Second {
					return Unit{}, errors.New("nobody there")
				}
				return running, nil
			}},
		{name: "boot never completes", boot: true, took: time.Minute, want: "unit boot-complete.target was still inactive (dead) when the deadline came",
			unit: func(name string, _ time.Duration) (Unit, error) {
				if name == bootComplete {
					return loaded("inactive", "dead"), nil
				}
				return running, nil
			}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				c, err := New(Options{Units: []string{"app.service"}, BootComplete: tc.boot, MinUptime: 10 * time.Second,
					Systemd: script{start: start, unit: tc.unit}})
				if err != nil {
					t.Fatal(err)
				}
				// The deadline lies between two polls, so that their order does not matter.
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute-time.Second/2)
				defer cancel()
				err = c.Check(ctx, nil)
				if took := time.Since(start).Round(time.Second); took != tc.took {
					t.Errorf("Check took %v; want %v", took, tc.took)
				}
				checkVerdict(t, err, tc.want)
				if atDeadline := errors.Is(err, context.DeadlineExceeded); atDeadline != (tc.took == time.Minute) {
					t.Errorf("Check = %v; DeadlineExceeded: %v", err, atDeadline)
				}
			})
		})
	}
}

// checkVerdict wants a healthy system, or an *Unhealthy that contains want.
func checkVerdict(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Fatalf("Check = %v; want healthy", err)
		}
		return
	}
	var u *Unhealthy
	if !errors.As(err, &u) || !strings.Contains(err.Error(), want) {
		t.Fatalf("Check = %v; want an *Unhealthy that says %q", err, want)
	}
	if u.ErrorName() != "Unhealthy" || u.Check == "" {
		t.Errorf("verdict %+v has name %q", u, u.ErrorName())
	}
}

func TestNoChecksWaitForTheMinimumUptime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c, err := New(Options{MinUptime: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		signs := 0
		if err := c.Check(t.Context(), func() { signs++ }); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 30*time.Second || signs < 30 {
			t.Errorf("Check took %v with %d signs of life; want 30s and one a second", took, signs)
		}
	})
}

func TestCancelIsNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Options{MinUptime: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Second+time.Second/2, cancel)
		err = c.Check(ctx, nil)
		var u *Unhealthy
		if !errors.Is(err, context.Canceled) || errors.As(err, &u) {
			t.Errorf("Check = %v; want context.Canceled and no verdict", err)
		}
	})
}

func TestUnresponsiveSystemdGivesNoSignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Options{Units: []string{"app.service"}, Systemd: hanging{}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		signs := 0
		start := time.Now()
		err = c.Check(ctx, func() { signs++ })
		checkVerdict(t, err, "the state of unit app.service was still unknown")
		if took := time.Since(start); took != 25*time.Second || signs > 0 {
			t.Errorf("%d signs of life in %v, want none in 25s", signs, took)
		}
	})
}

type hanging struct{}

func (hanging) Unit(ctx context.Context, _ string) (Unit, error) {
	<-ctx.Done()
	return Unit{}, ctx.Err()
}

func (hanging) Stopping(ctx context.Context) (bool, error) {
	<-ctx.Done()
	return false, ctx.Err()
}

func TestCommandsRunOnceAfterTheUnits(t *testing.T) {
	dir := t.TempDir()
	count := 0
	s := script{unit: func(string, time.Duration) (Unit, error) {
		count++
		if count < 3 {
			return loaded("activating", "start"), nil
		}
		return loaded("active", "running"), nil
	}}
	c, err := New(Options{Units: []string{"app.service"}, Systemd: s, Poll: time.Millisecond, Commands: []Command{
		shell("one", `test ! -e `+dir+`/one && echo x > `+dir+`/one`),
		shell("two", `test -e `+dir+`/one`),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if count < 4 {
		t.Errorf("%d looks at the unit; want one more after the commands", count)
	}
}

func TestUnitThatACommandBringsDown(t *testing.T) {
	count := 0
	s := script{unit: func(string, time.Duration) (Unit, error) {
		if count++; count > 1 {
			return loaded("failed", "failed"), nil
		}
		return loaded("active", "running"), nil
	}}
	c, err := New(Options{Units: []string{"app.service"}, Systemd: s, Commands: []Command{shell("one", "exit 0")}})
	if err != nil {
		t.Fatal(err)
	}
	checkVerdict(t, c.Check(t.Context(), nil), "unit app.service failed")
}

func TestNewRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"units without systemd":         {Units: []string{"a.service"}},
		"boot-complete without systemd": {BootComplete: true},
		"unit without name":             {Units: []string{""}, Systemd: hanging{}},
		"negative uptime":               {MinUptime: -1},
		"negative delay":                {ShutdownDelay: -1},
		"negative poll":                 {Poll: -1},
		"command without name":          {Commands: []Command{{Argv: []string{"/bin/true"}, Timeout: 1}}},
		"command without time-out":      {Commands: []Command{{Name: "a", Argv: []string{"/bin/true"}}}},
		"command without argv":          {Commands: []Command{{Name: "a", Timeout: 1}}},
		"relative command":              {Commands: []Command{{Name: "a", Argv: []string{"true"}, Timeout: 1}}},
		"two of a name":                 {Commands: []Command{shell("a", "true"), shell("a", "true")}},
	} {
		if c, err := New(o); err == nil || c != nil {
			t.Errorf("New with %s = %v, %v; want an error", name, c, err)
		}
	}
}

// Questions that nobody answers must not keep the watchdog fed.
func TestAliveIsAnAnswer(t *testing.T) {
	for _, tc := range []struct {
		name  string
		units []string
		err   error
		want  bool
	}{
		{"answers", []string{"app.service"}, nil, true},
		{"silence", []string{"app.service"}, errors.New("no reply"), false},
		{"no units to ask for", nil, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				systemd := script{start: time.Now(), unit: func(string, time.Duration) (Unit, error) { return loaded("activating", "start"), tc.err }}
				c, err := New(Options{Units: tc.units, Systemd: systemd, MinUptime: time.Hour})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				signs := 0
				if err := c.Check(ctx, func() { signs++ }); err == nil {
					t.Error("it is healthy")
				}
				if tc.want != (signs > 10) || !tc.want && signs > 0 {
					t.Errorf("%d signs of life in a minute", signs)
				}
			})
		})
	}
}
