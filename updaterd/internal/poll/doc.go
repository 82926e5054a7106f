// SPDX-License-Identifier: Apache-2.0

// Package poll is where updates come from: a file of channel metadata on any web
// server, which it gets, verifies and reads for one kind of device, now and then.
//
// It judges who signed them and whether they are of the right channel. Whether they
// are new, and what to do with them, is for package update, which remembers.
package poll
