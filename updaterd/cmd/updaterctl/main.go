// SPDX-License-Identifier: Apache-2.0

// Command updaterctl controls updaterd; see package ctl.
package main

import (
	"os"

	"github.com/updaterd/updaterd/updaterd/ctl"
)

func main() { os.Exit(ctl.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
