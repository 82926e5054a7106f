// SPDX-License-Identifier: Apache-2.0

// Command updaterctl controls updaterd; see package ctl.
package main

import (
	"os"

	"github.com/updaterd/updaterd/updaterd/ctl"
)

// version is set with -ldflags -X.
var version = "unknown"

func main() { os.Exit(ctl.Run(version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
