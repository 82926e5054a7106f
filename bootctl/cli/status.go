// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/updaterd/updaterd/bootctl"
)

var statusCommand = command{
	name: "status", args: "[--json]",
	about: "Show which slot is started next, the trial, bad slots and the copies of the environment.",
	run:   (*app).status,
}

// statusJSON is the stable form of status --json.
type statusJSON struct {
	Primary   bootctl.Slot   `json:"primary"`
	Trial     bool           `json:"trial"`
	TriesLeft int            `json:"tries_left"`
	Bad       []bootctl.Slot `json:"bad"`
	EnvID     string         `json:"env_id"`
	Copies    int            `json:"copies"`
	Redundant bool           `json:"redundant"`
	Problems  []string       `json:"problems"`
	Warnings  []string       `json:"warnings"`
}

func (a *app) status(args []string) error {
	flags := a.flags("status")
	asJSON := flags.Bool("json", false, "")
	if err := parse(flags, args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return usagef("status takes no arguments")
	}
	_, st, err := a.look()
	if err != nil {
		return err
	}
	if *asJSON {
		out := statusJSON{st.Primary, st.Trial, st.TriesLeft, st.Bad, st.EnvID, st.Copies, st.Redundant, st.Problems, st.Warnings}
		if out.Bad == nil {
			out.Bad = []bootctl.Slot{}
		}
		if out.Problems == nil {
			out.Problems = []string{}
		}
		if out.Warnings == nil {
			out.Warnings = []string{}
		}
		return json.NewEncoder(a.stdout).Encode(out)
	}
	fmt.Fprintf(a.stdout, "primary slot:  %s\n", st.Primary)
	switch {
	case !st.Trial:
		fmt.Fprintln(a.stdout, "trial:         no")
	case st.TriesLeft == 0:
		fmt.Fprintln(a.stdout, "trial:         yes, the next start falls back")
	default:
		fmt.Fprintf(a.stdout, "trial:         yes, %d more starts\n", st.TriesLeft)
	}
	bad := make([]string, len(st.Bad))
	for i, slot := range st.Bad {
		bad[i] = string(slot)
	}
	fmt.Fprintf(a.stdout, "bad slots:     %s\n", orNone(strings.Join(bad, " ")))
	fmt.Fprintf(a.stdout, "environment:   %s\n", copies(st))
	fmt.Fprintf(a.stdout, "env_id:        %s\n", orNone(st.EnvID))
	for _, p := range st.Problems {
		fmt.Fprintf(a.stdout, "problem:       %s\n", p)
	}
	for _, w := range st.Warnings {
		fmt.Fprintf(a.stdout, "warning:       %s\n", w)
	}
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func copies(st bootctl.Status) string {
	switch {
	case !st.Redundant:
		return "one copy, not redundant: a power cut while it is written loses it"
	case st.Copies == 1:
		return "one of two copies is intact; the next change repairs the other"
	}
	return "two copies, both intact"
}
