// SPDX-License-Identifier: Apache-2.0

package cli

import "fmt"

var getCommand = command{
	name: "get", args: "[NAME...]",
	about: "Print variables as NAME=VALUE, all of them if none is named.",
	run:   (*app).get,
}

func (a *app) get(args []string) error {
	names, err := a.noFlags("get", args)
	if err != nil {
		return err
	}
	c, err := a.open()
	if err != nil {
		return err
	}
	env, err := c.Env()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		names = env.Names()
	}
	for _, name := range names {
		value := env.Get(name)
		if value == "" {
			// What was found is printed all the same.
			err = fmt.Errorf("variable %s is %w", name, errNotSet)
			continue
		}
		fmt.Fprintf(a.stdout, "%s=%s\n", name, value)
	}
	return err
}
