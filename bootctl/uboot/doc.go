// SPDX-License-Identifier: Apache-2.0

// Package uboot reads and changes U-Boot's environment without U-Boot's tools.
//
// Its one contract: a change of any number of variables is one write, at one
// offset, of the copy that is not in force (on NOR flash, a second one clears a
// bit in the other copy). It is synced and read back from the
// medium before it counts, and the copy that was in force is not touched in the
// same step. If no copy is intact, nothing is ever written.
//
// The layers, from the bottom: [Env] is the list of variables and its byte form;
// [Copy] is one stored copy with its checksum and flag, and a [Convention] is
// U-Boot's rule for which copy is in force; a [Store] keeps the copies (in regular
// files, on block devices, raw flash or in UBI volumes), [OpenStore] finds
// them with fw_env.config; [Control] is [bootctl.Control] on a store, with the
// variables of one of the schemes that docs/boot-contract.md describes; [Scheme]
// says which.
//
// The package never falls back to compiled-in defaults as U-Boot's own tools do.
//
//	control, err := uboot.Open(uboot.Options{Config: "/etc/fw_env.config"})
//	if err != nil {
//		return err
//	}
//	status, err := control.Status()
package uboot
