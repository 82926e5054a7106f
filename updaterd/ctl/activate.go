// SPDX-License-Identifier: Apache-2.0

package ctl

import "context"

func activateCommand() *command {
	return &command{
		name:        "activate",
		summary:     "make the installed slot primary",
		description: []string{"Makes the slot that install --no-activate has written primary, in one write of the boot environment: the next start is its trial."},
		root:        "root, and whoever polkit gives org.updaterd.install.",
		exits:       []int{exitFailure, exitNotAuthorized, exitRefused},
		examples:    []example{{"updaterctl activate && updaterctl reboot", "switch to what was installed before"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.client.Activate(ctx); err != nil {
				return err
			}
			c.say("the next start is the trial of the installed system")
			c.hint(`run "updaterctl reboot"`)
			return nil
		},
	}
}
