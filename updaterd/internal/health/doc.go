// SPDX-License-Identifier: Apache-2.0

// Package health judges a system that is on trial, and feeds the watchdogs.
//
// [Checker] has one contract: Check returns nil only after every required check
// has passed. Its error is a sentence that names the check, fit to be recorded
// as the reason for rolling back. The checks:
//
//   - systemd units: each must be active and must stay so, without a restart in
//     between, for the minimum uptime. A unit that is still starting is waited
//     for; one that has failed, or that is not installed, ends the trial at once.
//   - boot-complete.target, if asked for, is one more such unit.
//   - commands: each is run once, in order, after the units have proved
//     themselves. Any exit status but 0 ends the trial at once, and so does the
//     time-out, at which the command's whole process group is killed.
//
// A failure is no verdict if the system is going down: systemd is asked for its
// state, and where it cannot be, the failure waits for the signal to stop.
//
// The one overall deadline is the context's.
//
// [Watchdog] feeds the hardware watchdog, if this process is the one that opens
// it, and systemd's service watchdog: for good, but during a trial only while
// the checks make progress.
//
//	checker, err := health.New(health.Options{Units: []string{"app.service"}, Systemd: health.NewBus(dial), MinUptime: 10 * time.Second})
//	watchdog, err := health.OpenWatchdog(health.WatchdogOptions{Device: "/dev/watchdog", Timeout: 30 * time.Second})
//	defer watchdog.Start(ctx)()
//	watchdog.Trial()
//	err = checker.Check(deadline, watchdog.Alive)
//
// The package decides nothing about slots, and it does not look for daemonised
// children of a command that have left its process group.
package health
