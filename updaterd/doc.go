// SPDX-License-Identifier: Apache-2.0

// Command updaterd is the A/B updater's daemon. On a device it is the only
// binary of the project: under the names updaterctl and updater-bootctl it is
// those tools.
//
// This package reads the configuration and puts the parts together; what they
// do is in updaterd/internal.
package main

//go:generate go test -run TestGenerated -update .
