// SPDX-License-Identifier: Apache-2.0

// Package manual makes the manual pages and the completion scripts of all
// programs out of what the programs say about themselves, so that help, page
// and completion cannot differ.
//
// Its one contract: the same description gives the same bytes. There is no date
// in a page, so it changes only when its program does.
//
// It is for tests and is linked into no program: each program has a test that
// compares its files with what [Page] and [Completion] make, and writes them
// when it is run by go generate.
//
//	p := manual.Read("updater-sign", 1, "make keys, and sign files", help)
//	manual.Check(t, map[string]string{"../../../docs/man/updater-sign.1": manual.Page(p)})
package manual
