// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/updaterd/updaterd/bootctl"
)

var setPrimaryCommand = command{
	name: "set-primary", args: "[--trial] SLOT",
	about: "Start SLOT from now on. With --trial, only for as many starts as bootlimit allows, unless\n" +
		"mark-good confirms it; without, a trial in progress ends. A bad slot is refused.",
	run: (*app).setPrimary,
}

func (a *app) setPrimary(args []string) error {
	flags := a.flags("set-primary")
	trial := flags.Bool("trial", false, "")
	if err := parse(flags, args); err != nil {
		return err
	}
	arg := flags.Arg(0)
	if flags.NArg() > 1 { // --trial may stand behind the slot
		if err := parse(flags, flags.Args()[1:]); err != nil {
			return err
		}
		if flags.NArg() > 0 {
			return usagef("set-primary: %q is one argument too many", flags.Arg(0))
		}
	}
	if arg == "" {
		return usagef("set-primary needs one slot")
	}
	slot, err := slotArg(arg)
	if err != nil {
		return err
	}
	change := bootctl.Change{Primary: slot, Trial: bootctl.TrialEnd}
	if *trial {
		change.Trial = bootctl.TrialBegin
	}
	if err := a.change(change); err != nil {
		return err
	}
	next := "; reboot to start it"
	if a.booted() == slot {
		next = ", and it runs"
	}
	fmt.Fprintf(a.stdout, "slot %s is primary%s\n", slot, next)
	return nil
}
