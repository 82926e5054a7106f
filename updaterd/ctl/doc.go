// SPDX-License-Identifier: Apache-2.0

// Package ctl is the command line of updaterctl: it asks updaterd over D-Bus
// and shows what it answers.
//
// Its one contract is with scripts: exit codes, JSON names and the wording of
// hints are documented, tested and only ever added to. Each command is one file
// that describes itself as data; the help text, the manual page and the
// completion of bash are made from that data (go generate), so they agree.
//
// It decides nothing and stores nothing, and it needs no right of its own: who
// may do what is between the daemon and polkit.
//
//	os.Exit(ctl.Run(version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
package ctl

//go:generate go test -run TestGenerated -update .
