// SPDX-License-Identifier: Apache-2.0

// The command updater-bootctl shows and changes what the bootloader does; see
// package bootctl/cli. On a device it is a link to the daemon's binary.
package main

import (
	"os"

	"github.com/updaterd/updaterd/bootctl/cli"
)

// version is set with -ldflags -X.
var version = "unknown"

func main() {
	os.Exit(cli.Run(version, os.Args[1:], os.Stdout, os.Stderr))
}
