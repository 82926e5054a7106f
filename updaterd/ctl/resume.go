// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"

	"github.com/updaterd/updaterd/updaterd/client"
)

func resumeCommand() *command {
	return &command{
		name:        "resume",
		summary:     "let a paused job go on",
		description: []string{"The job goes on where it was."},
		root:        "root, and whoever polkit gives org.updaterd.control-job.",
		exits:       []int{exitFailure, exitNotAuthorized, exitRefused},
		examples:    []example{{"updaterctl resume", "go on after pause"}},
		run: func(ctx context.Context, c *call) error {
			return c.control(ctx, (*client.Job).Resume, "goes on")
		},
	}
}
