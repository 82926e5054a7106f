// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/updaterd/updaterd/updaterd/client"
)

func statusCommand() *command {
	return &command{
		name:    "status",
		summary: "show slots, the job in hand and the last result",
		description: []string{
			"Shows which slot runs, which one is started next, whether the system that runs is on trial, and whatever keeps an install from working.",
			"Of a channel it shows whether its metadata are fresh. Expired means that nothing new was seen for longer than their signer meant them to hold: somebody may be hiding releases.",
		},
		root:     "anybody.",
		schema:   "status",
		exits:    []int{exitFailure},
		examples: []example{{"updaterctl status", "look at the device"}, {"updaterctl status --json", "the same for a program"}},
		run:      status,
	}
}

func status(ctx context.Context, c *call) error {
	s, err := c.client.Status(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.out, s)
	}
	rows(c.out, statusRows(s))
	c.warnExpired(s.Channel)
	switch {
	case s.State == client.PendingReboot:
		c.hint(`run "updaterctl reboot" to begin the trial`)
	case s.State == client.Installed:
		c.hint(`run "updaterctl activate", then "updaterctl reboot"`)
	case s.Job != nil:
		c.hint(`run "updaterctl watch" to follow the job`)
	case s.Channel != nil && s.Channel.Offer != nil:
		c.hint(`run "updaterctl install" to install what the channel offers`)
	}
	return nil
}

func statusRows(s *client.Status) [][2]string {
	list := [][2]string{
		{"state", string(s.State)},
		{"version", known(s.Version)},
		{"compatible", known(s.Compatible)},
		{"booted slot", known(s.BootedSlot)},
		{"primary slot", known(s.PrimarySlot)},
		{"target slot", known(s.TargetSlot)},
	}
	if s.DeviceID != "" || len(s.Groups) > 0 {
		list = append(list, [2]string{"device", strings.Join(append([]string{known(s.DeviceID)}, s.Groups...), ", ")})
	}
	if s.Trial {
		list = append(list, [2]string{"trial", fmt.Sprintf("yes, %d tries left", s.TriesLeft)})
	}
	if len(s.BadSlots) > 0 {
		list = append(list, [2]string{"bad slots", strings.Join(s.BadSlots, ", ")})
	}
	names := make([]string, 0, len(s.Slots))
	for name := range s.Slots {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		list = append(list, [2]string{"slot " + name, slotText(s.Slots[name])})
	}
	if s.Floor > 0 {
		list = append(list, [2]string{"floor", fmt.Sprintf("sequence %d (%s)", s.Floor, strings.Join(s.FloorPlaces, ", "))})
	}
	if !s.TimeFloor.IsZero() {
		list = append(list, [2]string{"time floor", date(s.TimeFloor)})
	}
	if s.Job != nil {
		text := strings.Join(append([]string{doing(s.Job)}, figures(s.Job)...), ", ")
		list = append(list, [2]string{fmt.Sprintf("job %d", s.Job.Job), s.Job.Ref}, [2]string{"", text})
	}
	if s.Channel != nil {
		list = append(list, channelRows(s.Channel)...)
	}
	if s.LastResult != nil {
		list = append(list, [2]string{"last result", resultText(s.LastResult)})
	}
	for _, p := range s.Problems {
		list = append(list, [2]string{"problem", p})
	}
	return list
}

func slotText(s client.Slot) string {
	text := []string{"version " + known(s.Version)}
	if s.Size > 0 {
		text = append(text, size(s.Size))
	}
	for _, w := range []struct {
		is   bool
		word string
	}{{s.Verified, "verified"}, {s.Booted, "booted"}, {s.Primary, "primary"}, {s.Bad, "bad"}} {
		if w.is {
			text = append(text, w.word)
		}
	}
	return strings.Join(text, ", ")
}

func resultText(r *client.Result) string {
	text := string(r.Outcome)
	if r.Version != "" {
		text += ", version " + r.Version
	}
	text += ", " + date(r.Time)
	if r.Override {
		text += ", confirmed by hand"
	}
	if r.Message != "" {
		text += ": " + strings.ReplaceAll(r.Message, "\n", " ")
	}
	return text
}
