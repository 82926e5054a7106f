// SPDX-License-Identifier: Apache-2.0

// Package servertest gives tests a private message bus, an updater that only
// pretends, and a polkit that says what it is told.
//
// It is for the tests of server, client and ctl, which must agree on what a
// daemon does; nothing in it is part of the product.
//
//	address := servertest.Bus(t)
//	fake := servertest.NewUpdater()
//	srv, err := server.Listen(server.Options{Updater: fake, Address: address})
package servertest
