// SPDX-License-Identifier: Apache-2.0

// Package channel is channel metadata: the signed statement of what a channel
// offers, and until when that holds (docs/channel.md).
//
// A bundle proves who made it, and never grows old: whoever stands between a device
// and its server can go on serving an old one. Metadata do grow old. Their serial only
// rises, so older ones are known for a replay; they expire, so that nothing new for
// too long is seen; and they pin the manifest of every release that they offer.
//
// The package verifies and judges nothing by time or by what was seen before: that
// is for who keeps both.
package channel
