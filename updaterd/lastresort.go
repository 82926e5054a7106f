// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"math"
	"os/exec"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/updaterd/internal/config"
	"github.com/updaterd/updaterd/updaterd/internal/machine"
)

// lastResort ends a trial that this daemon cannot judge, because it cannot start,
// or cannot tell which slot it runs from: a new system whose updater does
// not work would otherwise stay for ever. After the deadline, counted from the
// start of the kernel, it reboots. That costs a try, so the bootloader falls
// back when they are used up. claimed is the slot that the kernel command line
// names, or "": if it is not the one on trial, the trial has not begun, and to
// reboot into it is for others to say. If the deadline is further off than patience, it
// returns after that, so that the daemon can be started anew. Outside a trial
// it does nothing.
func lastResort(ctx context.Context, c *config.Config, claimed bootctl.Slot, patience time.Duration, log *slog.Logger) {
	control, now, err := lookAtBoot(c, claimed)
	switch {
	case err != nil:
		log.Error("whether this is a trial is not known: " + err.Error())
		return
	case !onTrial(now, claimed):
		if err := acknowledge(control, now, claimed); err != nil {
			log.Error("this start could not be acknowledged: " + err.Error())
		}
		return
	}
	left := max(0, c.Health.Deadline.Std()-machine.Uptime())
	log.Error("this trial cannot be judged; it ends with a reboot", "in", left)
	if !wait(ctx, min(left, patience)) || left > patience { // not yet
		return
	}
	for ; onTrial(now, claimed); now = again(control, now) { // or else somebody has decided
		err := machine.Reboot(ctx)
		if err == nil {
			return
		}
		log.Error(err.Error()) // nobody else would ask again
		if !wait(ctx, min(restartPause, patience)) {
			return
		}
	}
}

// lookAtBoot reads what the bootloader would do. It opens no switch: what they
// have selected says nothing about a trial.
func lookAtBoot(c *config.Config, claimed bootctl.Slot) (*uboot.Control, bootctl.Status, error) {
	control, err := openEnvironment(c, claimed)
	if err != nil {
		return nil, bootctl.Status{}, err
	}
	s, err := control.Status()
	return control, s, err
}

// again reads it once more; a failure tells nothing new.
func again(control *uboot.Control, before bootctl.Status) bootctl.Status {
	if now, err := control.Status(); err == nil {
		return now
	}
	return before
}

// onTrial reports that the system that runs is on trial, and that there is another
// one to fall back to.
func onTrial(s bootctl.Status, claimed bootctl.Slot) bool {
	return s.Trial && !s.IsBad(s.Primary.Other()) && (claimed == "" || claimed == s.Primary)
}

// acknowledge tells a bootloader that counts every start that the system which is
// to stay has started, as a daemon does first: one that cannot start, for a reason that
// has nothing to do with it, must not use up the starts of a good system.
func acknowledge(control *uboot.Control, s bootctl.Status, claimed bootctl.Slot) error {
	if s.Trial || claimed == "" || claimed != s.Primary || s.IsBad(claimed) {
		return nil
	}
	return control.Apply(bootctl.Change{Trial: bootctl.TrialEnd})
}

// wait reports whether that long has passed, before ctx ended.
func wait(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

// endTrial is lastResort where there may never be a daemon, because the start of
// the system does not get that far: it comes to emergency mode, or waits for ever
// for a unit. A daemon that runs decides by the deadline, so that only a trial that
// is one still a while after it has nobody to judge it. judged asks
// whether it has: a daemon that runs is left alone, even if it cannot write its verdict.
func endTrial(ctx context.Context, c *config.Config, claimed bootctl.Slot, poll time.Duration, judged func(context.Context) bool, log *slog.Logger) {
	for end, said := c.Health.Deadline.Std()+verdictTime, ""; ; {
		_, now, err := lookAtBoot(c, claimed)
		if err == nil && !onTrial(now, claimed) {
			return
		}
		if err != nil && said != err.Error() { // for instance, the device is not there yet
			said = err.Error()
			log.Warn("whether this is a trial is not known yet: " + said)
		}
		left := end - machine.Uptime()
		if left <= 0 {
			break
		}
		if !wait(ctx, min(left, poll)) {
			return
		}
	}
	if judged(ctx) {
		return
	}
	lastResort(ctx, c, claimed, math.MaxInt64, log)
}

// daemonRuns asks systemd.
func daemonRuns(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, restartPause)
	defer cancel()
	return exec.CommandContext(ctx, "systemctl", "is-active", "--quiet", "updaterd.service").Run() == nil
}

// restartPause is how long a daemon that cannot start waits before it ends, to
// be started anew, and how long after a reboot that was refused it asks again.
const restartPause = 10 * time.Second

// verdictTime is how long after the deadline a daemon that runs has decided, and
// written it down.
const verdictTime = time.Minute
