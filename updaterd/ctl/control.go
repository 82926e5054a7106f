// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"

	"github.com/updaterd/updaterd/updaterd/client"
)

// control does something to the job in hand.
func (c *call) control(ctx context.Context, do func(*client.Job, context.Context) error, done string) error {
	job, err := c.client.Job(ctx)
	if err != nil {
		return err
	}
	if job == nil {
		return &client.Error{Name: client.BadState, Message: c.command.name + ": there is no job in hand"}
	}
	if err := do(job, ctx); err != nil {
		return err
	}
	c.say("job %d %s", job.ID(), done)
	return nil
}
