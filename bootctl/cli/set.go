// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"

	"github.com/updaterd/updaterd/bootctl/uboot"
)

var setCommand = command{
	name: "set", args: "NAME=VALUE...",
	about: "Set variables, all in one write. NAME= removes one. The variables behind the\n" +
		"other commands are refused, because a typing error there could keep the device from starting.",
	run: (*app).set,
}

// guarded maps the variables that set refuses to the command for them.
var guarded = map[string]string{
	uboot.VarSlot: "set-primary", uboot.VarBad: "mark-bad or mark-good",
	uboot.VarTrial: "mark-good or set-primary --trial", uboot.VarCount: "mark-good",
	uboot.VarOrder: "set-primary, mark-bad or mark-good",
}

// guard is the command to use instead of setting the variable, or "".
func guard(name string) string {
	if strings.HasPrefix(name, "BOOT_") && strings.HasSuffix(name, "_LEFT") {
		return "mark-good or mark-bad"
	}
	return guarded[name]
}

func (a *app) set(args []string) error {
	args, err := a.noFlags("set", args)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return usagef("set needs NAME=VALUE")
	}
	for _, arg := range args {
		name, _, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return usagef("%q is not NAME=VALUE", arg)
		}
		if use := guard(name); use != "" {
			return usagef("%s is not set by hand: use %s", name, use)
		}
	}
	c, err := a.open()
	if err != nil {
		return err
	}
	return c.Update(false, func(env *uboot.Env) error {
		for _, arg := range args {
			name, value, _ := strings.Cut(arg, "=")
			if err := env.Set(name, value); err != nil {
				return err
			}
		}
		return nil
	})
}
