// SPDX-License-Identifier: Apache-2.0

// Package uboot is the one source of what the project asks of U-Boot: the
// configuration fragment (updaterd.config), the boot commands with the default
// environment (updaterd.env), and the binary form of the environment as a
// factory writes it to a disk.
//
// Its contract: the text that is compiled into U-Boot and the environment that a
// factory image carries come from the same file. It is written without the
// product's own environment codec (bootctl/uboot), so that the two check each
// other when U-Boot, libubootenv and the daemon read the same disk.
//
// It changes no environment that is in use; that is the work of bootctl.
//
//	env, err := uboot.Default()
//	env["env_id"] = "0123456789abcdef"
//	copy1, err := uboot.Encode(env, uboot.EnvSize, 1)
package uboot
