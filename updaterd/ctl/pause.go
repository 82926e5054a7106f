// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"

	"github.com/updaterd/updaterd/updaterd/client"
)

func pauseCommand() *command {
	return &command{
		name:        "pause",
		summary:     "pause the job in hand",
		description: []string{"Stops downloading or writing until resume, over restarts and reboots too. What was done is kept."},
		root:        "root, and whoever polkit gives org.updaterd.control-job.",
		exits:       []int{exitFailure, exitNotAuthorized, exitRefused},
		examples:    []example{{"updaterctl pause", "free the link for something else"}},
		run: func(ctx context.Context, c *call) error {
			return c.control(ctx, (*client.Job).Pause, "paused")
		},
	}
}
