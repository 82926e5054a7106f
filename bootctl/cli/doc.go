// SPDX-License-Identifier: Apache-2.0

// Package cli is the command updater-bootctl: it shows and changes what the
// bootloader does, without the daemon.
//
// Its one contract: every command that changes something makes one atomic
// change, or none and says why. It is a package, and not only a main, because a
// device has one binary that answers to several names.
//
// It decides nothing about updates: that a slot is good is for the caller to know.
//
//	os.Exit(cli.Run(version, os.Args[1:], os.Stdout, os.Stderr))
package cli

//go:generate go test -run TestGenerated -update .
