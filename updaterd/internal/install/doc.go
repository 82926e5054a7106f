// SPDX-License-Identifier: Apache-2.0

// Package install turns a reference to a bundle into a written target slot.
//
// Its one contract: no byte reaches a slot that was not authenticated, decoded
// in memory and compared with the signed digest of its chunk; and the first
// block of a slot is cleared before anything else is written, and written last,
// after all the rest was read back from the medium. So a slot whose first block
// is in place is complete, wherever the power was cut.
//
// Whatever was done before a restart is verified and kept: stored chunks by the
// digest of their encoded bytes, written chunks by the digest of their content.
// The unit of loss is one chunk. Memory is bounded by the chunk size.
//
// What is at hand is not fetched: chunks that the target slot has in their
// place, units that are stored, and frames of a blocks recipe that lie anywhere in
// either slot. Where the slots' content is only believed to be something, it is
// read and compared before it is used, and what does not fit costs its own bytes,
// by policy. Of a chunk only the blocks that differ are written.
//
// It does not decide whether a release is wanted (floors, known-bad bundles),
// it does not touch the boot environment, and it never writes the booted slot
// or a device that is in use. [Engine] satisfies update.Engine.
//
//	engine, err := install.New(install.Options{Compatible: "board-1", Slots: slots, Dir: "/data/updaterd/downloads", …})
//	release, err := engine.Inspect(ctx, "https://example.com/board-1.upb", "b", update.InstallOptions{})
//	err = engine.Download(ctx, release, report)
//	stats, err := engine.Install(ctx, release, report)
package install
