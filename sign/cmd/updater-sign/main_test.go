// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/updaterd/updaterd/sign/cli/clitest"
)

func TestMain(m *testing.M) { clitest.Main(m, "updater-sign", main) }

func TestScripts(t *testing.T) { clitest.Run(t, map[string]clitest.Command{"mode": mode}) }

// mode OCTAL FILE: the file has these permissions.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}
