// SPDX-License-Identifier: Apache-2.0

package ubootmodel

import (
	"errors"
	"strconv"
	"strings"

	"github.com/updaterd/updaterd/bootctl"
)

// orderCommand is the bootcmd of scheme bootorder, by which Board knows which
// script it runs.
const orderCommand = "run boot_in_order"

// errReset: the boot commands reset the device.
var errReset = errors.New("reset")

// maxResets is after how many resets in a row a device counts as one that never starts.
const maxResets = 20

// FactoryOrder is a default environment of scheme bootorder, slot first.
func FactoryOrder(slot bootctl.Slot) map[string]string {
	return map[string]string{
		"BOOT_ORDER": orderName(slot) + " " + orderName(slot.Other()), "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "3",
		"bootcmd": orderCommand,
	}
}

func orderName(slot bootctl.Slot) string { return strings.ToUpper(string(slot)) }

// bootOrder is a boot script of scheme bootorder: it takes one off the first
// slot that has starts left, saves, and starts that one. One that cannot be
// loaded costs a start, too.
func (m *machine) bootOrder(start Start, starts func(bootctl.Slot) bool) (Start, error) {
	for name, value := range map[string]string{"BOOT_ORDER": "A B", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "3"} {
		if m.vars[name] == "" {
			m.vars[name] = value
		}
	}
	for _, name := range strings.Fields(m.vars["BOOT_ORDER"]) {
		left, err := strconv.ParseUint(m.vars["BOOT_"+name+"_LEFT"], 16, 31)
		if err != nil || left == 0 {
			continue
		}
		m.vars["BOOT_"+name+"_LEFT"] = strconv.FormatUint(left-1, 16)
		if err := m.save(); err != nil {
			return start, err
		}
		slot := bootctl.Slot(strings.ToLower(name))
		if !starts(slot) {
			return start, errReset
		}
		start.Slot = slot
		return start, nil
	}
	m.vars["BOOT_A_LEFT"], m.vars["BOOT_B_LEFT"] = "3", "3"
	if err := m.save(); err != nil {
		return start, err
	}
	return start, errReset
}
