// SPDX-License-Identifier: Apache-2.0

package ctl

import "context"

func rebootCommand() *command {
	return &command{
		name:        "reboot",
		summary:     "reboot the device",
		description: []string{"Starts an orderly reboot. After an install it begins the trial of the new system."},
		root:        "root, and whoever polkit gives org.updaterd.reboot.",
		exits:       []int{exitFailure, exitNotAuthorized, exitRefused},
		examples:    []example{{"updaterctl reboot", "begin the trial"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.client.Reboot(ctx); err != nil {
				return err
			}
			c.say("the device reboots")
			return nil
		},
	}
}
