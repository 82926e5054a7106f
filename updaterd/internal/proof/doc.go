// SPDX-License-Identifier: Apache-2.0

// Package proof has no code of the product. Its tests let the real state
// machine, journal, install engine and boot environment do whole updates on a
// simulated device (package medium), cut the power after every step of them, in
// every way in which that can leave the media, start a model of U-Boot on what
// is left, and let the real daemon go on until it has settled. The invariants of
// docs/power-cuts.md must hold at every point.
//
// The tests print how many cut points and states they tried. They are the same
// in every run.
package proof
