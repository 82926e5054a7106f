// SPDX-License-Identifier: Apache-2.0

// Package cli is what the command lines of the programs that sign have in
// common: commands and their options, help, passphrases and exit codes. The
// device binary does not use it.
package cli
