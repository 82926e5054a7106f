// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"

	"github.com/updaterd/updaterd/updaterd/client"
)

func cancelCommand() *command {
	return &command{
		name:        "cancel",
		summary:     "end the job in hand",
		description: []string{"Ends the job. If the target slot was already being written it stays unbootable until the next install; the system that runs is not touched. A job whose slot has been started cannot be cancelled: mark-bad rolls it back."},
		root:        "root, and whoever polkit gives org.updaterd.control-job.",
		exits:       []int{exitFailure, exitNotAuthorized, exitRefused},
		examples:    []example{{"updaterctl cancel", "stop an install"}},
		run: func(ctx context.Context, c *call) error {
			return c.control(ctx, (*client.Job).Cancel, "is cancelled")
		},
	}
}
