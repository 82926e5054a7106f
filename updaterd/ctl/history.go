// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"fmt"
	"strconv"
)

func historyCommand() *command {
	return &command{
		name:        "history",
		summary:     "show how the last jobs ended",
		description: []string{"Newest first."},
		root:        "anybody.",
		options:     []option{{name: "limit", arg: "N", usage: "show at most N results; 20 without it"}},
		schema:      "result",
		exits:       []int{exitFailure},
		examples:    []example{{"updaterctl history --limit=5", "the last five"}},
		run:         history,
	}
}

func history(ctx context.Context, c *call) error {
	limit := uint64(20)
	if v, given := c.flags["limit"]; given {
		var err error
		if limit, err = strconv.ParseUint(v, 10, 16); err != nil || limit == 0 {
			return usagef("history: --limit is %q, want a number from 1 to 65535", v)
		}
	}
	results, err := c.client.History(ctx, uint32(limit))
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.out, results)
	}
	for i := range results {
		r := &results[i]
		text := resultText(r)
		if r.From != "" && r.To != "" {
			text += fmt.Sprintf(" (%s to %s)", r.From, r.To)
		}
		c.say("%s", text)
	}
	if len(results) == 0 {
		c.say("nothing was installed yet")
	}
	return nil
}
