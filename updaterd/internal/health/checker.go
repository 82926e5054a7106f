// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

const (
	bootComplete = "boot-complete.target"
	defaultPoll  = time.Second
	// unitTimeout bounds one question to systemd.
	unitTimeout = 10 * time.Second
	// shutdownDelay is how long a failure waits for a sign that the system stops,
	// where systemd does not say: sequential stop scripts may take the application
	// down long before the daemon is told. A true failure loses only that time.
	shutdownDelay = 20 * time.Second
	// restartDelay is how long it waits in any case: a restart of the daemon alone
	// ends its commands too, at the same moment.
	restartDelay = time.Second
)

// Options says what a healthy system is. The zero value calls every system healthy.
type Options struct {
	// Units must be active and stay active for MinUptime.
	Units []string
	// BootComplete adds boot-complete.target to them.
	BootComplete bool
	// MinUptime is how long the units must have been up without interruption,
	// counted from the start of the check at the earliest.
	MinUptime time.Duration
	// Commands are run once each, after the units.
	Commands []Command
	// Systemd answers for units and for the system's state. It is nil where there
	// is no systemd; then there are no units.
	Systemd Systemd
	// Poll is the time between two looks at the units; 0 means one second.
	Poll time.Duration
	// ShutdownDelay is how long a failure waits to be told that the system is going
	// down; 0 means 20 seconds. systemd, if it says that it is not, makes it a second.
	ShutdownDelay time.Duration
}

// A Command is a check that passes if it exits with status 0 in time.
type Command struct {
	Name    string
	Argv    []string // Argv[0] is an absolute path
	Timeout time.Duration
}

// Systemd tells the state of a unit, and whether the system is going down.
type Systemd interface {
	Unit(ctx context.Context, name string) (Unit, error)
	Stopping(ctx context.Context) (bool, error)
}

// Unit is what systemd says about a unit, in its own words.
type Unit struct {
	LoadState   string // "loaded", "not-found", "masked", …
	ActiveState string // "active", "activating", "failed", …
	SubState    string // "running", "auto-restart", …
	Result      string // of a service: "success", "exit-code", …
	Restarts    uint32 // of a service: automatic restarts so far
	Invocation  string // changes with every start
}

// An Unhealthy error is the verdict on a trial. It is a sentence about one check.
type Unhealthy struct {
	Check  string // "unit app.service" or "command self-test"
	Reason string
	cause  error
}

func (u *Unhealthy) Error() string { return u.Reason }

// ErrorName is the stable name of docs/errors.md.
func (u *Unhealthy) ErrorName() string { return "Unhealthy" }

// Unwrap gives context.DeadlineExceeded if the deadline decided.
func (u *Unhealthy) Unwrap() error { return u.cause }

// Checker runs the checks.
type Checker struct {
	o     Options
	units []string
}

// New checks the options.
func New(o Options) (*Checker, error) {
	if o.Poll == 0 {
		o.Poll = defaultPoll
	}
	o.ShutdownDelay = o.shutdownDelay()
	c := &Checker{o: o, units: slices.Clone(o.Units)}
	if o.BootComplete && !slices.Contains(c.units, bootComplete) {
		c.units = append(c.units, bootComplete)
	}
	if len(c.units) > 0 && o.Systemd == nil {
		return nil, fmt.Errorf("set up health checks: units are given, but there is no systemd to ask")
	}
	if slices.Contains(c.units, "") {
		return nil, fmt.Errorf("set up health checks: a unit without a name")
	}
	if o.Poll < 0 || o.MinUptime < 0 || o.ShutdownDelay < 0 {
		return nil, fmt.Errorf("set up health checks: a negative time")
	}
	for i, cmd := range o.Commands {
		switch {
		case cmd.Name == "":
			return nil, fmt.Errorf("set up health checks: command %d has no name", i+1)
		case slices.ContainsFunc(o.Commands[:i], func(other Command) bool { return other.Name == cmd.Name }):
			return nil, fmt.Errorf("set up health checks: two commands are called %q", cmd.Name)
		case len(cmd.Argv) == 0 || !filepath.IsAbs(cmd.Argv[0]):
			return nil, fmt.Errorf("set up health checks: command %q does not begin with an absolute path", cmd.Name)
		case cmd.Timeout <= 0:
			return nil, fmt.Errorf("set up health checks: command %q has no time-out", cmd.Name)
		}
	}
	return c, nil
}

// Check waits until every check has passed, until one fails for good, or until
// ctx ends. At a deadline the error is *Unhealthy; if ctx was cancelled it is
// context.Canceled, which is no verdict. alive is called after every answer.
func (c *Checker) Check(ctx context.Context, alive func()) error {
	if alive == nil {
		alive = func() {}
	}
	err := c.check(ctx, alive)
	if err == nil {
		return nil
	}
	c.reconsider(ctx, alive)
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("health check: %w", ctx.Err())
	}
	return err
}

// reconsider returns when a failure counts, or when ctx ends. At a shutdown units
// fail and commands are killed, which may be seen before the daemon is told to
// stop: that must not roll a good system back. systemd calls its state "stopping"
// before it stops the first unit; where it cannot be asked, or is still starting,
// time has to tell.
func (c *Checker) reconsider(ctx context.Context, alive func()) {
	if ctx.Err() != nil {
		return
	}
	alive() // a failure is an answer, and the watchdog has to wait as well
	counts := time.Now().Add(c.o.ShutdownDelay)
	for pause := restartDelay; ; pause = c.o.Poll {
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(pause, time.Until(counts))):
		}
		if !time.Now().Before(counts) {
			return
		}
		ask, cancel := context.WithDeadline(ctx, counts)
		stopping, err := c.stopping(ask)
		cancel()
		if err != nil {
			continue
		}
		alive()
		if !stopping {
			return
		}
		counts = time.Now().Add(c.o.ShutdownDelay)
	}
}

func (c *Checker) stopping(ctx context.Context) (bool, error) {
	if c.o.Systemd == nil {
		return false, errors.ErrUnsupported
	}
	return c.o.Systemd.Stopping(ctx)
}

func (c *Checker) check(ctx context.Context, alive func()) error {
	w := &watch{checker: c, alive: alive, seen: map[string]instance{}, since: time.Now()}
	poll := time.NewTicker(c.o.Poll)
	defer poll.Stop()
	var before *Unhealthy // what the previous look waited for
	for commandsPassed := false; ; {
		waiting, err := w.look(ctx)
		if err != nil {
			return err
		}
		if ctx.Err() != nil && before != nil {
			waiting = before // the last look was cut short and tells nothing
		}
		before = waiting
		if len(c.units) == 0 {
			alive() // else look does, for each answer: a systemd that is silent is no sign of life
		}
		if waiting == nil && ctx.Err() == nil {
			if commandsPassed {
				return nil
			}
			if err := c.runCommands(ctx, alive); err != nil {
				return err
			}
			commandsPassed = true
			continue // one last look: the commands may have brought a unit down
		}
		select {
		case <-ctx.Done():
			return ended(ctx, waiting)
		case <-poll.C:
		}
	}
}

// ended is what to say when ctx ends while waiting.
func ended(ctx context.Context, waiting *Unhealthy) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("health check: %w", ctx.Err())
	}
	if waiting == nil {
		waiting = &Unhealthy{Check: "deadline", Reason: "the health checks"}
	}
	return &Unhealthy{Check: waiting.Check, Reason: waiting.Reason + " when the deadline came", cause: ctx.Err()}
}

func (c *Checker) runCommands(ctx context.Context, alive func()) error {
	for _, cmd := range c.o.Commands {
		if err := cmd.Run(ctx); err != nil {
			return err
		}
		alive()
	}
	return nil
}

func (o Options) shutdownDelay() time.Duration {
	if o.ShutdownDelay == 0 {
		return shutdownDelay
	}
	return o.ShutdownDelay
}

// Grace is how long a trial may go without a sign of life before the watchdog
// is left to bite: the watchdog's own time-out and the longest single check, or
// the time for which a failure waits.
func (o Options) Grace(timeout time.Duration) time.Duration {
	longest := max(unitTimeout, o.shutdownDelay())
	for _, cmd := range o.Commands {
		longest = max(longest, cmd.Timeout+killDelay)
	}
	return timeout + longest
}
