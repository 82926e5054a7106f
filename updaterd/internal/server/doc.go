// SPDX-License-Identifier: Apache-2.0

// Package server shows the updater on D-Bus: a manager object, one object for
// each of the last few jobs, properties that announce their changes, and one
// polkit action for each kind of request.
//
// Its contract: nothing reaches the updater before its caller was authorised,
// and every error that leaves has one of the stable names of docs/errors.md.
// Reading properties and the history needs no right.
//
// It does not know how an update works, it stores nothing, and it never reads
// configuration; the interface it offers is described in docs/dbus.md and in
// data/org.updaterd.Updater1.xml, which a test compares with the running service.
//
//	srv, err := server.Listen(server.Options{Updater: updater, Log: log})
//	if err != nil {
//		return err
//	}
//	defer srv.Close()
//	return srv.Run(ctx)
package server

//go:generate go test -run TestGenerated -update .
