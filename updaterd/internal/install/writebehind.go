// SPDX-License-Identifier: Apache-2.0

package install

import "github.com/updaterd/updaterd/updaterd/internal/update"

// behindLimit bounds the chunk that is written while the next one is made, which
// takes a copy of it. Larger ones are rare, and memory is not to be had for them.
const behindLimit = 1 << 20

// An outcome is what writing a chunk came to.
type outcome struct {
	length int
	stats  update.InstallStats
	err    error
}

// begin writes chunk i, which was verified, and need not wait for it: whoever is
// next calls settle first. At most one chunk is on its way, so chunks are
// written in the order in which they are made.
func (w *work) begin(s *slot, i int, b []byte) {
	done := make(chan outcome, 1)
	s.writing = done
	write := func(b []byte) {
		o := outcome{length: len(b)}
		if o.stats, o.err = s.put(i, b); o.err == nil && s.dirty >= syncEvery {
			o.err = s.sync()
		}
		done <- o
	}
	if len(b) > len(w.behind) {
		write(b)
		return
	}
	copy(w.behind, b)
	go write(w.behind[:len(b)])
}

// settle waits for the chunk that is on its way, if there is one, and counts it.
func (w *work) settle(s *slot) error {
	if s.writing == nil {
		return s.unwritten
	}
	o := <-s.writing
	s.writing, s.unwritten = nil, o.err
	w.count(o.stats)
	if o.err == nil {
		w.account()
		w.progress(int64(o.length))
	}
	return o.err
}

// count adds what was written, and what was not because it was in place.
func (w *work) count(n update.InstallStats) {
	w.stats.Written += n.Written
	w.stats.Blocks += n.Blocks
	w.stats.Unchanged += n.Unchanged
}
