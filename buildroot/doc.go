// SPDX-License-Identifier: Apache-2.0

// Package buildroot has no code: the directory is an external tree for Buildroot
// (README.md), and the tests here try it.
package buildroot
