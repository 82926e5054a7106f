// SPDX-License-Identifier: Apache-2.0

// Package fetch reads byte ranges of one bundle from an HTTP server, or from a
// local file, over links that may die at any byte.
//
// Its one contract is that the bytes it hands out are the bytes asked for, in
// order, each once: an answer that is not exactly the range that was requested
// is an error, never data, and a connection that breaks or stalls is made anew
// at the next byte. If the server's file changes between two requests the
// caller is told ([Error.Changed]) before a byte of the new file is delivered.
//
// Networks with a login page (captive portals) answer in the server's place.
// Before anything was verified such an answer is an error at once, because a
// person may have mistyped the URL. After that ([Remote.Verified]) it is one of
// the link's faults, and waited for like the others.
//
// The package trusts nothing it reads and authenticates nothing: that is the
// caller's job, with digests. It never asks for several ranges at once, keeps no
// cookies, and sends no credentials to a host that was not named by the caller.
//
//	client, err := fetch.New(fetch.Options{CAFile: "/etc/updaterd/ca.pem"})
//	remote, err := client.Open("https://example.com/device-1.2.upb")
//	body, err := remote.Range(ctx, 0, 16)
package fetch
