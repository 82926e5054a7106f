// SPDX-License-Identifier: Apache-2.0

// Package origin is the web server of the tests: it serves bundles with ranges
// over HTTP or HTTPS on loopback, counts every byte of every body it sends, and
// can be told to misbehave as links and servers do.
package origin
