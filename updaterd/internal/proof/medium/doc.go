// SPDX-License-Identifier: Apache-2.0

// Package medium is what a device stores things on, in memory: block devices and
// a file system that remember every write and every sync, and that tell what a
// power cut may leave of them.
//
// A [Medium] is used like the real thing: [Medium.Disk] opens block devices, and
// a Medium is a [durable.FS]. Each step that changes something goes into its
// [Medium.Log]. From the log, [Replay] works out after each step what is durable
// and what may be lost, and [Replay.Cuts] lists the states in which the power may
// leave the medium there:
//
//   - what was synced is there;
//   - of the writes to a block device since its last flush, each sector of 512
//     bytes holds what any one of them, or none, put there: torn, in part, and in
//     any order; or each of 4 KiB;
//   - of a file whose content was not synced, the length is the old one, the new
//     one or the end of a sector between, and each sector new, old or zeros;
//   - of the names changed in a directory since it was synced, any subset is. A
//     rename is one change.
//
// Where that is few it is all of it, else a sample of it, always the same.
//
//	m := medium.New(medium.NewState())
//	err := durable.WriteFile(m, "/data/journal.json", journal, 0o600)
//	r := medium.NewReplay(before)
//	for _, op := range m.Log() {
//		r.Step(op)
//		for state := range r.Cuts(rng, medium.Rules{Limit: 64}) {
//			… medium.New(state) …
//		}
//	}
package medium
