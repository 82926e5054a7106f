// SPDX-License-Identifier: Apache-2.0

// Package bootctl is the userspace half of the boot contract: which slot the
// bootloader will start, whether that start is a trial, how many tries are left
// and which slots must not be started at all.
//
// Its one promise is that a change is one atomic write: [Control.Apply] either
// leaves the whole change or nothing of it, wherever the power is cut. What the
// bootloader makes of the variables is written down in docs/boot-contract.md.
//
// The package does not know what an update is, and it never decides; see
// bootctl/uboot for the implementation on U-Boot's environment.
//
//	control, err := uboot.Open(uboot.Options{Config: "/etc/fw_env.config"})
//	status, err := control.Status()
//	err = control.Apply(bootctl.Change{Primary: "b", Trial: bootctl.TrialBegin, NotBad: []bootctl.Slot{"b"}})
package bootctl
