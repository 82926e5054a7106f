// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/updaterd/updaterd/updaterd/client"
)

// maxPermit bounds a permit, in bytes, as the daemon does.
const maxPermit = 64 << 10

// modeOption is shared by the two commands that plan a download.
func modeOption() option {
	return option{name: "mode", values: []string{"auto", "store", "stream"},
		usage: "store the download on the data partition and install it then, stream it into the slot, or let the device choose (auto, the default)"}
}

// permitOption likewise.
func permitOption() option {
	return option{name: "permit", arg: "FILE", usage: "a permit, signed for this device, to go back to a release below the floor"}
}

// planned is what the two commands have to say of a download.
func (c *call) planned() (client.InstallOptions, error) {
	o := client.InstallOptions{Mode: c.flags["mode"]}
	path, given := c.flags["permit"]
	if !given {
		return o, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return o, usagef("--permit: %v", err)
	}
	defer f.Close()
	if o.Permit, err = io.ReadAll(io.LimitReader(f, maxPermit+1)); err != nil {
		return o, usagef("--permit: %v", err)
	}
	if n := len(o.Permit); n == 0 || n > maxPermit {
		return o, usagef("--permit: %s is no permit, which has 1 to %d bytes", path, maxPermit)
	}
	return o, nil
}

func inspectCommand() *command {
	return &command{
		name: "inspect", args: "[URL|FILE]", max: 1, files: true,
		summary: "verify a bundle and tell what installing it would cost",
		description: []string{
			"Fetches the signed part of the bundle, verifies it, checks that this device can install it, and tells the bytes that this device would download. Changes nothing.",
			"Without URL or FILE it is the release that the channel offered at the last check.",
			"Expected is what the chosen recipes cost. For that a recipe of blocks is compared with both slots, which may take some time; otherwise no slot is read: pieces of the image that the target slot holds already are found when the download begins, and then not fetched.",
		},
		root:    "root, and whoever polkit gives org.updaterd.inspect, which is anybody at the device itself.",
		options: []option{modeOption(), permitOption()},
		schema:  "release",
		exits:   []int{exitFailure, exitNotAuthorized, exitRefused, exitNetwork, exitInterrupted},
		examples: []example{
			{"updaterctl inspect https://updates.example.org/v2.upb", "look before consenting"},
			{"updaterctl inspect --json v2.upb | jq .expected", "bytes to download, for a program"},
		},
		run: inspect,
	}
}

func inspect(ctx context.Context, c *call) error {
	options, err := c.planned()
	if err != nil {
		return err
	}
	r, err := c.client.Inspect(ctx, c.ref(), options)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.out, r)
	}
	list := [][2]string{
		{"version", known(r.Version)},
		{"sequence", fmt.Sprint(r.Sequence)},
		{"compatible", strings.Join(r.Compatible, ", ")},
		{"created", date(r.Created)},
		{"digest", r.Digest},
		{"signed by", strings.Join(r.KeyIDs, ", ")},
		{"target slot", r.Target},
		{"mode", r.Mode},
		{"download", fmt.Sprintf("%d bytes (%s) expected; %s at least, %s at most", r.Expected, size(r.Expected), size(r.Minimum), size(r.Maximum))},
	}
	for _, i := range r.Images {
		list = append(list, [2]string{"image " + i.Class, fmt.Sprintf("%s, %s recipe, %d bytes (%s) to download", size(i.Size), i.Recipe, i.Download, size(i.Download))})
	}
	rows(c.out, list)
	return nil
}
