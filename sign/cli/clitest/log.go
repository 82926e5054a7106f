// SPDX-License-Identifier: Apache-2.0

package clitest

import (
	"crypto/ed25519"
	"fmt"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/updaterd/updaterd/sign/logtest"
)

// testLog is a log with five entries of others.
func testLog(name string) *logtest.Log {
	l := logtest.New(name+".example.com - 42", ed25519.NewKeyFromSeed([]byte(fmt.Sprintf("%-32s", name))))
	l.Fill(5)
	return l
}

// logKey LOG FILE: the public key of a log, whose origin is "LOG.example.com - 42".
func logKey(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), testLog(args[0]).PublicKey(), 0o600))
}

// rekor LOG VERSION REQUEST ANSWER: the log takes the entry that is asked for, and answers.
func rekor(ts *testscript.TestScript, _ bool, args []string) {
	l := testLog(args[0])
	at, err := l.Take([]byte(ts.ReadFile(args[2])))
	ts.Check(err)
	l.Fill(1)
	answer := l.Answer1
	if args[1] == "2" {
		answer = l.Answer2
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), answer(at), 0o600))
}
