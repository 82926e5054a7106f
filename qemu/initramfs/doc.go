// SPDX-License-Identifier: Apache-2.0

// Command initramfs is /init of the guests' initramfs. It loads the modules that
// /modules lists, in that order, mounts the device that root= on the kernel
// command line names, read-only, and starts /sbin/init there.
//
// Its contract: if any of this fails it says why on the console and ends, which
// is a kernel panic and, with panic=N, a reset that the boot counter counts. It
// never starts a shell and never tries another root: choosing is the bootloader's.
package main
