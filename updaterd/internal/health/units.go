// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"fmt"
	"time"
)

// watch follows the units during one check.
type watch struct {
	checker *Checker
	alive   func()
	seen    map[string]instance
	since   time.Time  // when all units were first seen up, after the last interruption
	down    bool       // at the last look, some unit was not up
	restart *Unhealthy // the last restart that was seen
}

// instance identifies one run of a unit.
type instance struct {
	invocation string
	restarts   uint32
}

// look asks for every unit once. It returns what still has to be waited for, or
// an error that no waiting can cure.
func (w *watch) look(ctx context.Context) (waiting *Unhealthy, err error) {
	for _, name := range w.checker.units {
		ask, cancel := context.WithTimeout(ctx, unitTimeout)
		u, err := w.checker.o.Systemd.Unit(ask, name)
		cancel()
		if err != nil {
			waiting = first(waiting, unitSays(name, "the state of unit %s was still unknown (%v)", name, err))
			continue
		}
		w.alive()
		verdict, final := judge(name, u)
		if final {
			return nil, verdict
		}
		waiting = first(waiting, verdict)
		w.note(name, u)
	}
	if waiting != nil {
		w.down = true
		return waiting, nil
	}
	if w.down {
		w.down, w.since = false, time.Now()
	}
	if minimum := w.checker.o.MinUptime; time.Since(w.since) < minimum {
		if w.restart != nil {
			return w.restart, nil
		}
		return &Unhealthy{Check: "minimum uptime", Reason: fmt.Sprintf("the minimum uptime of %v was not over", minimum)}, nil
	}
	return nil, nil
}

// note starts the uptime anew if the unit is not the one that was seen before.
func (w *watch) note(name string, u Unit) {
	now := instance{u.Invocation, u.Restarts}
	before, known := w.seen[name]
	if known && before == now {
		return
	}
	w.seen[name] = now
	w.since = time.Now()
	if known {
		w.restart = unitSays(name, "unit %s kept restarting (%d automatic restarts) and had not stayed up for %v",
			name, u.Restarts, w.checker.o.MinUptime)
	}
}

// judge tells what keeps a unit from being healthy, and whether that is final.
func judge(name string, u Unit) (verdict *Unhealthy, final bool) {
	switch {
	case u.LoadState != "loaded":
		return unitSays(name, "unit %s cannot be started: systemd says %s", name, u.LoadState), true
	case u.ActiveState == "failed":
		why := ""
		if u.Result != "" && u.Result != "success" {
			why = " (" + u.Result + ")"
		}
		return unitSays(name, "unit %s failed%s", name, why), true
	case u.ActiveState == "active", u.ActiveState == "reloading", u.ActiveState == "refreshing":
		return nil, false
	}
	state := u.ActiveState
	if u.SubState != "" && u.SubState != u.ActiveState {
		state += " (" + u.SubState + ")"
	}
	if u.Restarts > 0 {
		state += fmt.Sprintf(", after %d automatic restarts,", u.Restarts)
	}
	return unitSays(name, "unit %s was still %s", name, state), false
}

func unitSays(name, format string, args ...any) *Unhealthy {
	return &Unhealthy{Check: "unit " + name, Reason: fmt.Sprintf(format, args...)}
}

func first(a, b *Unhealthy) *Unhealthy {
	if a != nil {
		return a
	}
	return b
}
