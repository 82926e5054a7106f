// SPDX-License-Identifier: Apache-2.0

package ctl

import "context"

func markGoodCommand() *command {
	return &command{
		name: "mark-good", args: "[SLOT]", max: 1, words: slotWords(),
		summary: "say that a slot is good",
		description: []string{
			"Without an argument, the booted slot. In a trial this confirms the new system although its health checks have not passed; that is recorded as an override. SLOT is booted, other, a or b.",
		},
		root:     "root, and whoever polkit gives org.updaterd.mark; in a trial org.updaterd.override-trial.",
		exits:    []int{exitFailure, exitNotAuthorized, exitRefused},
		examples: []example{{"updaterctl mark-good", "confirm a trial by hand"}},
		run:      func(ctx context.Context, c *call) error { return c.mark(ctx, "good") },
	}
}

func slotWords() []string { return []string{"booted", "other", "a", "b"} }

// mark gives a verdict on the slot in the arguments, or on the booted one.
func (c *call) mark(ctx context.Context, verdict string) error {
	slot := "booted"
	if len(c.args) > 0 {
		slot = c.args[0]
	}
	message, err := c.client.Mark(ctx, verdict, slot)
	if err != nil {
		return err
	}
	c.say("%s", message)
	return nil
}
