// SPDX-License-Identifier: Apache-2.0

// Package check looks at a device for what an integrator can get wrong: what is
// mounted where, who starts and feeds what, what would spoil deltas.
//
// Its contract: a [Check] changes nothing. It returns what it found, or an error
// with a cure that a person can act on: a fault, without which the device does not
// update safely, or a doubt, which is a warning. What it looks at it gets from a
// [Host], so that a test can put each thing wrong.
//
//	for _, r := range check.Run(check.List(host)) {
//		fmt.Println(r.Level, r.Name, r.Text)
//	}
//
// What only the configuration, the keyring and the boot environment can tell is
// checked where they are opened, in package main.
package check
