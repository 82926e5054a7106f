// SPDX-License-Identifier: Apache-2.0

// Package scenario holds the end-to-end tests: whole updates on the simulated
// board, with a real U-Boot, a real D-Bus, a real web server and real keys, and
// with whatever may go wrong in the field. Each asserts which slot runs, what
// the boot environment says and which reason was recorded.
//
// They have the build tag qemu:
//
//	go test -tags qemu -v ./qemu/scenario
//
// A scenario that fails keeps its disk image and console log, and says where.
package scenario
