// SPDX-License-Identifier: Apache-2.0

// Package clitest runs the scripts in testdata that try a program's command
// line, each in a directory of its own.
//
// It is for tests and is linked into no program.
//
//	func TestMain(m *testing.M) { clitest.Main(m, "updater-sign", main) }
//	func TestScripts(t *testing.T) { clitest.Run(t, nil) }
package clitest

import (
	"fmt"
	"maps"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// A Command is one that scripts may use besides testscript's own.
type Command = func(ts *testscript.TestScript, neg bool, args []string)

// Main lets the scripts find the program under its name.
func Main(m *testing.M, name string, main func()) {
	testscript.Main(m, map[string]func(){name: main})
}

// Run runs every script with these commands and the commands status, logkey and rekor.
func Run(t *testing.T, commands map[string]Command) {
	all := map[string]Command{"status": status, "logkey": logKey, "rekor": rekor}
	maps.Copy(all, commands)
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true, Cmds: all})
}

// status N COMMAND...: the command ends with exit status N.
func status(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		got = fmt.Sprint(exit.ExitCode())
	} else {
		ts.Check(err)
	}
	if got != args[0] {
		ts.Fatalf("exit status %s, want %s", got, args[0])
	}
}
