// SPDX-License-Identifier: Apache-2.0

package ctl

import "context"

func markBadCommand() *command {
	return &command{
		name: "mark-bad", args: "[SLOT]", max: 1, words: slotWords(),
		summary: "say that a slot is bad",
		description: []string{
			"Without an argument, the booted slot. In a trial this rolls back: the device goes back to the old system and reboots. SLOT is booted, other, a or b.",
		},
		root:     "root, and whoever polkit gives org.updaterd.mark.",
		exits:    []int{exitFailure, exitNotAuthorized, exitRefused},
		examples: []example{{"updaterctl mark-bad", "roll back a trial"}, {"updaterctl mark-bad other", "never start the other slot again"}},
		run:      func(ctx context.Context, c *call) error { return c.mark(ctx, "bad") },
	}
}
