// SPDX-License-Identifier: Apache-2.0

// Package nbd is the disk of a simulated device whose plug can be pulled: a
// server of the Network Block Device protocol that QEMU uses as the medium.
//
// It logs every write and flush, and keeps what was written but not flushed
// apart from what is durable. A cut planned with [Disk.CutAtWrite] freezes the
// disk at that write: nothing after it is answered, what was not flushed is
// gone, and QEMU is expected to be killed. So a power cut needs no sleep and no
// hook in the product.
//
// Only what QEMU's client needs of the protocol is spoken: fixed newstyle
// negotiation, simple replies, read, write, flush and disconnect
// (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md).
package nbd
