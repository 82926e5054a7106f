// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"

	"github.com/updaterd/updaterd/updaterd/client"
)

func installCommand() *command {
	return &command{
		name: "install", args: "URL|FILE", min: 1, max: 1, files: true,
		summary: "install a bundle into the target slot",
		description: []string{
			"Verifies the bundle, downloads what differs, writes the target slot, reads it back and makes it primary: the next start is its trial. Shows the progress until then. The system that runs is not touched.",
			"The job belongs to the daemon: interrupting the command ends the showing, not the job. A job that was cut off by a reboot or a dead link goes on by itself.",
		},
		root: "root, and whoever polkit gives org.updaterd.install; with --reboot also org.updaterd.reboot, with --retry also org.updaterd.retry-known-bad.",
		options: []option{
			modeOption(),
			{name: "no-activate", usage: "stop when the slot is written; \"updaterctl activate\" makes it primary later"},
			{name: "reboot", usage: "reboot into the trial as soon as the slot is primary"},
			{name: "retry", usage: "install a bundle although it was tried before and judged bad"},
			{name: "detach", usage: "return as soon as the job has begun"},
		},
		schema: "job",
		exits:  []int{exitFailure, exitNotAuthorized, exitRefused, exitNetwork, exitRolledBack, exitCancelled, exitInterrupted},
		examples: []example{
			{"updaterctl install https://updates.example.org/v2.upb", "install and show the progress"},
			{"updaterctl install --no-activate v2.upb", "install a local file now, switch tonight"},
			{"updaterctl install --reboot --json URL", "for a program: one JSON object on each line"},
		},
		run: install,
	}
}

func install(ctx context.Context, c *call) error {
	if c.has("reboot") && c.has("no-activate") {
		return usagef("install: --reboot and --no-activate exclude each other")
	}
	job, err := c.client.Install(ctx, c.args[0], client.InstallOptions{
		Mode:       c.flags["mode"],
		NoActivate: c.has("no-activate"),
		Reboot:     c.has("reboot"),
		Retry:      c.has("retry"),
	})
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
