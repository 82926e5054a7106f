// SPDX-License-Identifier: Apache-2.0

package ctl

import "context"

func watchCommand() *command {
	return &command{
		name:    "watch",
		summary: "follow the job in hand",
		description: []string{
			"Shows the progress of the job in hand until it has ended or waits for a reboot or for activate. Without a job it tells how the last one ended. Its exit code is that of the job.",
		},
		root:     "anybody.",
		schema:   "job",
		exits:    []int{exitFailure, exitNetwork, exitRolledBack, exitCancelled, exitInterrupted},
		examples: []example{{"updaterctl watch", "see the bar again after an interruption"}},
		run:      watch,
	}
}

func watch(ctx context.Context, c *call) error {
	job, err := c.client.Job(ctx)
	if err != nil {
		return err
	}
	if job != nil {
		_, err = c.follow(ctx, job)
		return err
	}
	s, err := c.client.Status(ctx)
	if err != nil {
		return err
	}
	if s.LastResult == nil {
		c.say("there is no job, and there was none")
		return nil
	}
	c.say("there is no job; the last result is: %s", resultText(s.LastResult))
	return nil
}
