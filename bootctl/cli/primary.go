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
	if flags.NArg() != 1 {
		return fmt.Errorf("%w: set-primary needs one slot, and --trial comes before it", errUsage)
	}
	slot, err := slotArg(flags.Arg(0))
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
	fmt.Fprintf(a.stdout, "slot %s is primary; reboot to start it\n", slot)
	return nil
}
