// SPDX-License-Identifier: Apache-2.0

// Package ubootmodel is U-Boot's half of the boot contract as a model, for tests
// that cut the power: what U-Boot does with the environment from power-on until
// a slot is started, and a medium whose writes can be torn.
//
// Its one contract: [Board.Boot] does what a U-Boot with CONFIG_BOOTCOUNT_LIMIT,
// CONFIG_BOOTCOUNT_ENV and the boot commands of docs/boot-contract.md does, of
// either scheme: the environment says which. It
// shares no code with bootctl/uboot, so that it also checks the byte form of the
// environment, which copy is in force, and which one is written.
//
// It does not load kernels: whether a slot can be started is the caller's to say.
//
//	medium := ubootmodel.NewMemory(0x4000, 2)
//	board := ubootmodel.Board{Store: medium, Default: ubootmodel.Factory("a")}
//	err := board.Format()
//	start, err := board.Boot(func(slot bootctl.Slot) bool { return true })
package ubootmodel
