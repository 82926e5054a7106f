// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"

	"github.com/updaterd/updaterd/updaterd/client"
)

func installCommand() *command {
	return &command{
		name: "install", args: "[URL|FILE]", max: 1, files: true,
		summary: "install a bundle into the target slot",
		description: []string{
			"Verifies the bundle, downloads what differs, writes the target slot, reads it back and makes it primary: the next start is its trial. Shows the progress until then. The system that runs is not touched.",
			"Without URL or FILE it asks the channel first, as \"updaterctl check\" does, and installs just the release that it offers. If it offers nothing newer than what runs, that is no error, and nothing is done.",
			"The job belongs to the daemon: interrupting the command ends the showing, not the job. A job that was cut off by a reboot or a dead link goes on by itself.",
		},
		root: "root, and whoever polkit gives org.updaterd.install; without URL or FILE also org.updaterd.inspect, with --reboot also org.updaterd.reboot, with --retry also org.updaterd.retry-known-bad, with --permit also org.updaterd.downgrade.",
		options: []option{
			modeOption(),
			{name: "no-activate", usage: "stop when the slot is written; \"updaterctl activate\" makes it primary later"},
			{name: "reboot", usage: "reboot into the trial as soon as the slot is primary"},
			{name: "retry", usage: "install a bundle although it was tried before and judged bad"},
			permitOption(),
			{name: "detach", usage: "return as soon as the job has begun"},
		},
		schema: "job",
		exits:  []int{exitFailure, exitNotAuthorized, exitRefused, exitNetwork, exitRolledBack, exitCancelled, exitInterrupted},
		examples: []example{
			{"updaterctl install", "install what the channel offers, if that is newer"},
			{"updaterctl install https://updates.example.org/v2.upb", "install and show the progress"},
			{"updaterctl install --no-activate v2.upb", "install a local file now, switch tonight"},
			{"updaterctl install --permit back.permit v1.upb", "go back, as a permit allows it"},
			{"updaterctl install --reboot --json URL", "for a program: one JSON object on each line"},
		},
		run: install,
	}
}

func install(ctx context.Context, c *call) error {
	if c.has("reboot") && c.has("no-activate") {
		return usagef("install: --reboot and --no-activate exclude each other")
	}
	options, err := c.planned()
	if err != nil {
		return err
	}
	if c.ref() == "" {
		channel, err := c.client.Check(ctx)
		if err != nil {
			return err
		}
		c.warnExpired(channel)
		if channel.Offer == nil {
			return c.nothingOffered(channel)
		}
	}
	options.NoActivate, options.Reboot, options.Retry = c.has("no-activate"), c.has("reboot"), c.has("retry")
	job, err := c.client.Install(ctx, c.ref(), options)
	if err != nil {
		return err
	}
	if c.has("detach") {
		return c.detach(job)
	}
	_, err = c.follow(ctx, job)
	return err
}

// detached is what install --detach --json prints.
type detached struct {
	Job uint64 `json:"job"`
}

func (c *call) detach(job *client.Job) error {
	if c.json {
		return printJSON(c.out, detached{job.ID()})
	}
	c.say("job %d has begun", job.ID())
	c.hint(`run "updaterctl watch" to follow it`)
	return nil
}
