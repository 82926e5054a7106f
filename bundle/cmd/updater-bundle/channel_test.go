// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

// payload ENVELOPE: the file payload is what the envelope holds.
func payload(ts *testscript.TestScript, _ bool, args []string) {
	var e struct {
		Payload []byte `json:"payload"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &e))
	ts.Check(os.WriteFile(ts.MkAbs("payload"), e.Payload, 0o644))
}
