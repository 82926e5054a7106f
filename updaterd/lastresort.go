// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/updaterd/internal/config"
	"github.com/updaterd/updaterd/updaterd/internal/machine"
)

// lastResort ends a trial that this daemon cannot judge, because it cannot
// start, for instance because systemd is in emergency mode, or cannot tell which
// slot it runs from: a new system whose updater does
// not work would otherwise stay for ever. After the deadline, counted from the
// start of the kernel, it reboots. That costs a try, so the bootloader falls
// back when they are used up. claimed is the slot that the kernel command line
// names, or "": if it is not the one on trial, the trial has not begun, and to
// reboot into it is for others to say. If the deadline is further off than patience, it
// returns after that, so that the daemon can be started anew. Outside a trial
// it does nothing.
func lastResort(ctx context.Context, c *config.Config, claimed bootctl.Slot, patience time.Duration, log *slog.Logger) {
	control, err := openBoot(c, claimed)
	if err != nil {
		log.Error("whether this is a trial is not known: " + err.Error())
		return
	}
	onTrial := func() bool {
		s, err := control.Status()
		return err == nil && s.Trial && !s.IsBad(s.Primary.Other()) && (claimed == "" || claimed == s.Primary)
	}
	if !onTrial() {
		return
	}
	left := max(0, c.Health.Deadline.Std()-machine.Uptime())
	log.Error("this trial cannot be judged; it ends with a reboot", "in", left)
	select {
	case <-ctx.Done():
		return
	case <-time.After(min(left, patience)):
	}
	if left > patience { // not yet
		return
	}
	for onTrial() { // or else somebody has decided
		err := machine.Reboot(ctx)
		if err == nil {
			return
		}
		log.Error(err.Error()) // nobody else would ask again
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(restartPause, patience)):
		}
	}
}

// restartPause is how long a daemon that cannot start waits before it ends, to
// be started anew, and how long after a reboot that was refused it asks again.
const restartPause = 10 * time.Second
