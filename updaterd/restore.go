// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/durable"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/updaterd/internal/config"
	"github.com/updaterd/updaterd/updaterd/internal/machine"
)

// placeFile is the record, in the data directory, of where an intact environment
// was read last.
func placeFile(c *config.Config) string { return filepath.Join(c.DataDir, "environment") }

// remember puts on record where the environment is, if it is intact. Only what
// was intact there once can be lost: a fw_env.config that names another place
// finds no copy either, and to restore there would destroy what belongs to others.
func remember(c *config.Config, started bootctl.Slot) error {
	control, err := openEnvironment(c, started)
	if err != nil {
		return err
	}
	if _, err := control.Env(); err != nil || remembered(c, control) {
		return nil // what is wrong with the environment is for others to say
	}
	if _, err := durable.MakeDir(durable.OS{}, c.DataDir, 0o700); err != nil {
		return fmt.Errorf("put the place of the boot environment on record: %w", err)
	}
	if err := durable.WriteFile(durable.OS{}, placeFile(c), []byte(control.Place()), 0o600); err != nil {
		return fmt.Errorf("put the place of the boot environment on record: %w", err)
	}
	return nil
}

func remembered(c *config.Config, control *uboot.Control) bool {
	place, err := os.ReadFile(placeFile(c))
	return err == nil && string(place) == control.Place()
}

// restore writes a lost environment anew, from the configured defaults.
func restore(c *config.Config, change bootctl.Change) error {
	defaults, err := uboot.ReadText(c.Boot.Defaults)
	if err != nil {
		return err
	}
	control, err := openEnvironment(c, machine.Claimed(schemeOf(c)))
	if err != nil {
		return err
	}
	if !remembered(c, control) {
		return fmt.Errorf("no intact environment is on record at %s: correct %s; if that is right, run \"updater-bootctl restore %s\"", control.Place(), c.Boot.FwEnvConfig, c.Boot.Defaults)
	}
	return control.Restore(defaults, change, false)
}

// restorable tells why the configured defaults could not replace a lost environment.
func restorable(c *config.Config) error {
	defaults, err := uboot.ReadText(c.Boot.Defaults)
	if err != nil {
		return err
	}
	control, err := openEnvironment(c, "")
	if err != nil {
		return err
	}
	return control.Restorable(defaults)
}
