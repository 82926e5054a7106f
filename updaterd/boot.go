// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/emmc"
	"github.com/updaterd/updaterd/bootctl/fallbackcopy"
	"github.com/updaterd/updaterd/bootctl/parttable"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/updaterd/internal/check"
	"github.com/updaterd/updaterd/updaterd/internal/config"
	"github.com/updaterd/updaterd/updaterd/internal/install"
	"github.com/updaterd/updaterd/updaterd/internal/machine"
)

// openBoot opens the boot environment and the switches of those classes that it
// does not choose for.
func openBoot(c *config.Config, started bootctl.Slot) (*bootctl.Switched, error) {
	control, err := openEnvironment(c, started)
	if err != nil {
		return nil, err
	}
	switches := map[string]bootctl.Switch{}
	for _, class := range c.Classes() {
		if c.Type(class) == config.TypePartition {
			continue
		}
		if switches[class], err = openSwitch(c, class); err != nil {
			return nil, fmt.Errorf("slots of class %s: %w", class, err)
		}
	}
	return bootctl.WithSwitches(control, switches), nil
}

// openEnvironment finds the boot environment. started is the slot that the kernel
// command line names, or "".
func openEnvironment(c *config.Config, started bootctl.Slot) (*uboot.Control, error) {
	scheme := schemeOf(c)
	id, err := machine.BootID()
	if err != nil {
		return nil, err
	}
	scheme.Started, scheme.BootID = started, id
	return uboot.Open(uboot.Options{Config: c.Boot.FwEnvConfig, Scheme: scheme})
}

// schemeOf is the scheme that is configured.
func schemeOf(c *config.Config) uboot.Scheme {
	s := uboot.Scheme{Name: c.Boot.Scheme}
	copy(s.Slots[:], c.Boot.SlotNames)
	return s
}

// openSwitch opens the switch of a class whose type is not config.TypePartition.
func openSwitch(c *config.Config, class string) (bootctl.Switch, error) {
	a, b := c.Device(class, "a"), c.Device(class, "b")
	switch kind := c.Type(class); kind {
	case config.TypeEMMCBoot:
		return emmc.Open(a, b)
	case config.TypeFallbackCopy:
		return fallbackcopy.New(a, b, header(c, class)), nil
	case config.TypeMBRSwitch, config.TypeGPTSwitch:
		s := c.Slots[class+".a"]
		open := parttable.OpenMBR
		if kind == config.TypeGPTSwitch {
			open = parttable.OpenGPT
		}
		return open(s.Device, s.Partition, parttable.Halves{A: int64(s.Offset), B: int64(c.Slots[class+".b"].Offset), Size: int64(s.Size)})
	default:
		return nil, fmt.Errorf("internal error: type %q", kind)
	}
}

// header is where the header of a class's slot a is while slot b is selected.
func header(c *config.Config, class string) *fallbackcopy.Header {
	return &fallbackcopy.Header{Path: filepath.Join(c.DataDir, "headers", class+".a")}
}

// headers is what the engine does not write to a slot.
func headers(c *config.Config) map[string]install.HeaderStore {
	list := map[string]install.HeaderStore{}
	for _, class := range c.Classes() {
		if c.Type(class) == config.TypeFallbackCopy {
			list[c.Device(class, "a")] = header(c, class)
		}
	}
	return list
}

// place is the name of a slot for the engine: its device, or a region's own name.
func place(c *config.Config, class string, slot bootctl.Slot) string {
	name := c.Device(class, string(slot))
	if c.Region(class) {
		name = fmt.Sprintf("%s at %d", name, c.Slots[class+"."+string(slot)].Offset)
	}
	return name
}

// regions are the slots without a device of their own, and those that share
// theirs with the boot environment.
func regions(c *config.Config) (map[string]install.Region, error) {
	environment, _, err := uboot.ReadConfig(c.Boot.FwEnvConfig)
	if err != nil {
		return nil, err
	}
	list := map[string]install.Region{}
	for _, class := range c.Classes() {
		for _, slot := range []bootctl.Slot{bootctl.SlotA, bootctl.SlotB} {
			s := c.Slots[class+"."+string(slot)]
			end, err := beforeEnvironment(c, class, slot, environment)
			switch {
			case err != nil:
				return nil, fmt.Errorf("slot %s.%s: %w", class, slot, err)
			case c.Region(class):
				list[place(c, class, slot)] = install.Region{Device: s.Device, Offset: int64(s.Offset), Size: int64(s.Size)}
			case end > 0:
				list[place(c, class, slot)] = install.Region{Device: s.Device, Size: end}
			}
		}
	}
	return list, nil
}

// beforeEnvironment is how much of a slot's device lies before the copies of the
// boot environment in it, as in an eMMC's boot partition; 0 if there are none. An
// update must not write them, and a class that is carried over must not bring one
// along: that would be an older generation, in place of one that marks the target bad.
func beforeEnvironment(c *config.Config, class string, slot bootctl.Slot, environment uboot.Config) (end int64, err error) {
	s := c.Slots[class+"."+string(slot)]
	info, size, err := deviceAt(s.Device)
	if err != nil {
		return 0, nil // a broken slot is no reason not to start
	}
	for _, l := range environment {
		if there, err := os.Stat(l.Path); err != nil || !sameDevice(info, there) {
			continue
		}
		at := l.Offset
		if at < 0 {
			at += size
		}
		switch {
		case at <= 0 || c.Region(class) && at < int64(s.Offset)+int64(s.Size) && int64(s.Offset) < at+l.Size:
			return 0, fmt.Errorf("the boot environment at %#x of %s is in it: correct the slot, or %s", at, s.Device, c.Boot.FwEnvConfig)
		case !c.Region(class) && (end == 0 || at < end):
			end = at
		}
	}
	return end, nil
}

// checkSwitch compares what a switch has selected with what the bootloader starts.
func checkSwitch(c *config.Config, class string) (string, error) {
	cure := fmt.Sprintf("correct the devices of class %s, or see what docs/boot-contract.md asks of their type", class)
	s, err := openSwitch(c, class)
	if err != nil {
		return "", check.Fault(cure, "%w", err)
	}
	slot, err := s.Selected()
	if err != nil {
		return "", check.Fault(cure, "%w", err)
	}
	control, err := openEnvironment(c, machine.Claimed(schemeOf(c)))
	if err != nil {
		return fmt.Sprintf("%s.%s is selected", class, slot), nil // the environment has a check of its own
	}
	if status, err := control.Status(); err == nil && !status.Trial && status.Primary != slot {
		return "", check.Fault("start updaterd, which selects the primary one", "%s.%s is selected, although slot %s is primary", class, slot, status.Primary)
	}
	return fmt.Sprintf("%s.%s is selected", class, slot), nil
}
