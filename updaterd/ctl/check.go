// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"fmt"

	"github.com/updaterd/updaterd/updaterd/client"
)

func checkCommand() *command {
	return &command{
		name:    "check",
		summary: "ask the channel what it offers",
		description: []string{
			"Fetches the metadata of the channel, verifies them, and shows what they offer. Metadata that are older than what was seen before are refused as a replay. Those that have expired are shown as such, with a warning, or refused if the configuration says so. Installs nothing.",
			"updaterd does the same by itself, as often as its configuration says.",
		},
		root:   "root, and whoever polkit gives org.updaterd.inspect, which is anybody at the device itself.",
		schema: "channel",
		exits:  []int{exitFailure, exitNotAuthorized, exitRefused, exitNetwork, exitInterrupted},
		examples: []example{
			{"updaterctl check", "look for an update"},
			{"updaterctl check --json | jq -r .offer.version", "its version, or null, for a program"},
		},
		run: check,
	}
}

func check(ctx context.Context, c *call) error {
	channel, err := c.client.Check(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.out, channel)
	}
	rows(c.out, channelRows(channel))
	c.warnExpired(channel)
	if channel.Offer != nil {
		c.hint(`run "updaterctl install" to install it`)
	}
	return nil
}

// channelRows shows whether nothing is new, or nothing new was let through.
func channelRows(c *client.Channel) [][2]string {
	list := [][2]string{{"channel", c.Name + ", " + freshText(c)}}
	if c.Serial > 0 {
		list = append(list, [2]string{"last check", fmt.Sprintf("%s, serial %d, issued %s", date(c.Checked), c.Serial, date(c.Issued))})
	}
	if c.Error != "" {
		list = append(list, [2]string{"check failed", c.Error})
	}
	switch o := c.Offer; {
	case o != nil:
		list = append(list, [2]string{"offered", fmt.Sprintf("version %s, sequence %d", o.Version, o.Sequence)}, [2]string{"", o.Ref})
	case c.Serial > 0:
		list = append(list, [2]string{"offered", "nothing newer"})
	}
	return list
}

func freshText(c *client.Channel) string {
	switch c.Freshness {
	case client.MetadataFresh:
		return "fresh until " + date(c.Expires)
	case client.MetadataExpired:
		return "expired since " + date(c.Expires)
	}
	return "never seen"
}

// warnExpired says what expired metadata mean.
func (c *call) warnExpired(channel *client.Channel) {
	if channel != nil && channel.Freshness == client.MetadataExpired {
		fmt.Fprintf(c.err, "warning: the metadata of channel %s have expired: somebody may be hiding newer releases, or nobody has renewed them\n", channel.Name)
	}
}

// nothingOffered is how an install ends that has nothing to do.
func (c *call) nothingOffered(channel *client.Channel) error {
	if c.json {
		return printJSON(c.out, channel)
	}
	c.say("channel %s offers nothing newer", channel.Name)
	return nil
}

// ref is the bundle that was named, "" for what the channel offers.
func (c *call) ref() string {
	if len(c.args) == 0 {
		return ""
	}
	return c.args[0]
}
