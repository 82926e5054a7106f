// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
)

var restoreCommand = command{
	name: "restore", args: "[--slot SLOT] [--force] FILE",
	about: "Write every copy of a lost environment anew, from the default environment in FILE (NAME=VALUE a\n" +
		"line, as mkenvimage reads it). SLOT, or else the slot that runs, becomes primary, and the other one\n" +
		"is marked bad, because nothing tells what it holds. Refused while a copy is intact, unless --force.",
	run: (*app).restore,
}

func (a *app) restore(args []string) error {
	flags := a.flags("restore")
	name := flags.String("slot", "", "")
	force := flags.Bool("force", false, "")
	if err := parse(flags, args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return usagef("restore needs one file")
	}
	slot := a.booted()
	if *name != "" {
		var err error
		if slot, err = slotArg(*name); err != nil {
			return err
		}
	}
	if slot == "" {
		return usagef("the kernel's command line does not say which slot runs: name it with --slot")
	}
	defaults, err := uboot.ReadText(flags.Arg(0))
	if err != nil {
		return err
	}
	c, err := a.open()
	if err != nil {
		return err
	}
	change := bootctl.Change{Primary: slot, Trial: bootctl.TrialEnd, NotBad: []bootctl.Slot{slot}, Bad: []bootctl.Slot{slot.Other()}}
	err = c.Restore(defaults, change, *force)
	if errors.Is(err, uboot.ErrIntact) {
		return fmt.Errorf("%w: the next change repairs the rest; --force replaces it all the same", err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "the environment is restored from %s: slot %s is primary\n", flags.Arg(0), slot)
	fmt.Fprintf(a.stdout, "slot %s is marked bad; if you know that it holds a whole system, run \"updater-bootctl mark-good %s\"\n", slot.Other(), slot.Other())
	return nil
}
