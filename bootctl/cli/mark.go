// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/updaterd/updaterd/bootctl"
)

var markGoodCommand = command{
	name: "mark-good", args: "[SLOT]",
	about: "End the trial: keep the slot that is running. Both copies of the environment are brought to\n" +
		"the same content. With SLOT, take that slot off the list of bad slots instead; do that only if\n" +
		"you know that it holds a whole system.",
	run: (*app).markGood,
}

var markBadCommand = command{
	name: "mark-bad", args: "SLOT",
	about: "Never start SLOT again. If it is the primary slot, the other one becomes primary and the trial\n" +
		"ends. Refused if no good slot would be left.",
	run: (*app).markBad,
}

func (a *app) markGood(args []string) error {
	args, err := a.noFlags("mark-good", args)
	if err != nil {
		return err
	}
	switch len(args) {
	case 0:
	case 1:
		slot, err := slotArg(args[0])
		if err != nil {
			return err
		}
		if err := a.change(bootctl.Change{NotBad: []bootctl.Slot{slot}, BothCopies: true}); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "slot %s may be started\n", slot)
		return nil
	default:
		return usagef("mark-good takes at most one slot")
	}
	c, st, err := a.look()
	if err != nil {
		return err
	}
	if booted := a.booted(); st.Trial && booted != "" && booted != st.Primary {
		return fmt.Errorf("end trial: slot %s is on trial, but this is slot %s: start %s to confirm it, or give it up with \"updater-bootctl mark-bad %s\"",
			st.Primary, booted, st.Primary, st.Primary)
	}
	if err := c.Apply(bootctl.Change{Trial: bootctl.TrialEnd, BothCopies: true}); err != nil {
		return err
	}
	if st.Trial {
		fmt.Fprintf(a.stdout, "slot %s is confirmed\n", st.Primary)
	} else {
		fmt.Fprintf(a.stdout, "there is no trial; slot %s stays primary\n", st.Primary)
	}
	return nil
}

func (a *app) markBad(args []string) error {
	args, err := a.noFlags("mark-bad", args)
	if err != nil {
		return err
	}
	if len(args) != 1 {
		return usagef("mark-bad needs one slot")
	}
	slot, err := slotArg(args[0])
	if err != nil {
		return err
	}
	c, st, err := a.look()
	if err != nil {
		return err
	}
	change := bootctl.Change{Bad: []bootctl.Slot{slot}, BothCopies: true}
	if st.Primary == slot {
		change.Primary, change.Trial = slot.Other(), bootctl.TrialEnd
	}
	if err := c.Apply(change); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "slot %s is marked bad\n", slot)
	return nil
}

// booted is the slot on the kernel's command line, or "" if it names none.
func (a *app) booted() bootctl.Slot {
	text, err := os.ReadFile(a.cmdline)
	if err != nil {
		return ""
	}
	slot, err := a.options.Scheme.Booted(func(name string) (string, bool) {
		for _, word := range strings.Fields(string(text)) {
			if value, found := strings.CutPrefix(word, name+"="); found {
				return value, true
			}
		}
		return "", false
	})
	if err != nil {
		return ""
	}
	return slot
}
