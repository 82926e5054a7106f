// SPDX-License-Identifier: Apache-2.0

// Package config reads the daemon's one configuration file.
//
// Its contract: what [Parse] returns is complete and plausible, defaults filled
// in. Everything else is an error that names the key, the line where it can be
// found, and what to write instead; a key that is not known is an error too, so
// a misspelt one cannot silently leave a check out. All problems of a file are
// reported at once.
//
//	c, err := config.Load("/etc/updaterd/updaterd.toml")
//	root := c.Device("rootfs", "a")
//
// The file itself is documented in updaterd.toml, which [DefaultFile] returns.
// The package touches no device and does not check that files exist.
package config
