// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// At a shutdown units fail and commands are killed, some of them long before the
// daemon is told to stop.
func TestShutdownIsNoVerdict(t *testing.T) {
	const failure = 5 * time.Second
	says := func(answers ...any) func(time.Duration) (bool, error) {
		return func(time.Duration) (bool, error) {
			answer := answers[0]
			answers = answers[min(1, len(answers)-1):]
			if err, bad := answer.(error); bad {
				return false, err
			}
			return answer.(bool), nil
		}
	}
	silent := errors.New("no reply")
	for _, tc := range []struct {
		name     string
		stopping func(at time.Duration) (bool, error) // nil: there is no systemd
		stop     time.Duration                        // after the failure; 0: the daemon is not told to stop
		took     time.Duration                        // from the failure to the verdict; 0: there is none
	}{
		{"no systemd, and no shutdown", nil, 0, shutdownDelay},
		{"no systemd, and slow stop scripts", nil, 15 * time.Second, 0},
		{"systemd goes down, slowly", says(true), 80 * time.Second, 0},
		{"systemd goes down, and the bus before us", says(true, true, silent), 15 * time.Second, 0},
		{"systemd goes down, and never tells us", says(true, true, true, silent), 0, 3*time.Second + shutdownDelay},
		{"the shutdown was called off", says(true, true, true, false), 0, 4 * time.Second},
		{"systemd is up", says(false), 0, restartDelay},
		{"systemd is up, and the daemon is restarted", says(false), restartDelay / 2, 0},
		{"systemd cannot be asked, and no shutdown", says(silent), 0, shutdownDelay},
		{"systemd cannot be asked at a shutdown", says(silent), 15 * time.Second, 0},
		{"systemd can be asked later", says(silent, silent, false), 0, 3 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := Options{MinUptime: failure, Commands: []Command{{Name: "self-test", Argv: []string{"/nowhere"}, Timeout: time.Second}}}
				if tc.stopping != nil {
					o.Systemd = script{start: time.Now(), stopping: tc.stopping}
				}
				c, err := New(o)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if tc.stop > 0 {
					time.AfterFunc(failure+tc.stop, cancel)
				}
				start, last, longest := time.Now(), time.Now(), time.Duration(0)
				err = c.Check(ctx, func() { longest, last = max(longest, time.Since(last)), time.Now() })
				longest = max(longest, time.Since(last))
				if grace := o.Grace(time.Second); longest > grace {
					t.Errorf("%v without a sign of life; the watchdog waits for %v", longest, grace)
				}
				if tc.took > 0 {
					checkVerdict(t, err, "command self-test could not be run")
					if took := time.Since(start) - failure; took != tc.took {
						t.Errorf("the verdict took %v; want %v", took, tc.took)
					}
					return
				}
				var u *Unhealthy
				if !errors.Is(err, context.Canceled) || errors.As(err, &u) {
					t.Errorf("Check = %v; want context.Canceled and no verdict", err)
				}
			})
		})
	}
}

// A systemd that hangs at that question costs no more time than one that is not there.
func TestUnresponsiveSystemdDoesNotPutAVerdictOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Options{Systemd: hanging{}, ShutdownDelay: 7 * time.Second,
			Commands: []Command{{Name: "self-test", Argv: []string{"/nowhere"}, Timeout: time.Minute}}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		checkVerdict(t, c.Check(t.Context(), nil), "command self-test could not be run")
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("the verdict took %v; want 7s", took)
		}
	})
}

// The watchdog waits for the longest command, and then for what follows its failure.
func TestAFailureIsASignOfLife(t *testing.T) {
	c, err := New(Options{ShutdownDelay: time.Millisecond, Commands: []Command{shell("one", "exit 1")}})
	if err != nil {
		t.Fatal(err)
	}
	signs := 0
	checkVerdict(t, c.Check(t.Context(), func() { signs++ }), "command one exited with status 1")
	if signs != 2 {
		t.Errorf("%d signs of life; want one before the command and one when it has failed", signs)
	}
}
