// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"path/filepath"

	"github.com/updaterd/updaterd/bootctl/durable"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// A tally is what a job has cost so far. It is stored, because the byte budget
// is the job's and not that of one life of the daemon. A power cut forgets what
// was done since it was stored last: at most tallyEvery bytes that were fetched,
// tallyWritten that were written, and a chunk.
type tally struct {
	Job   uint64              `json:"job"`
	Stats update.InstallStats `json:"stats"`
}

const (
	tallyName    = "tally"
	tallyEvery   = 4 << 20
	tallyWritten = 64 << 20
	maxTally     = 1 << 10
)

func (s store) tallyPath(p *plan) string {
	return filepath.Join(s.dir, headName(p.key.digest, tallyName))
}

// loadTally returns the tally of a job; one that is damaged, or another job's, is empty.
func (s store) loadTally(p *plan, job uint64) tally {
	t := parseTally(s.read(s.tallyPath(p), maxTally))
	if t.Job != job {
		return tally{Job: job}
	}
	return t
}

func parseTally(b []byte) tally {
	var t tally
	if json.Unmarshal(b, &t) != nil {
		return tally{}
	}
	for _, n := range []int64{t.Stats.Fetched, t.Stats.Written, t.Stats.Blocks, t.Stats.Unchanged, t.Stats.Reused} {
		if n < 0 || n > 1<<56 {
			return tally{}
		}
	}
	return t
}

// begin takes up the tally of a job. Jobs are numbered from 1; with 0 nothing
// is remembered.
func (p *plan) begin(job uint64) {
	if job == 0 || p.tally.Job == job {
		return
	}
	p.tally = p.e.store.loadTally(p, job)
	p.before = p.tally.Stats.Fetched
}

// spent is what the job has fetched.
func (p *plan) spent() int64 { return p.before + p.fetched() }

// within checks n more bytes against the budget.
func (p *plan) within(n int64) error {
	if budget := p.e.o.ByteBudget; budget > 0 && p.spent()+n > budget {
		return fail(update.NameOverBudget, "%d more bytes are needed after %d, the byte budget is %d", n, p.spent(), budget)
	}
	return nil
}

// account stores the tally if enough was fetched since it was stored last.
func (p *plan) account() {
	if p.spent()-p.tally.Stats.Fetched >= tallyEvery {
		p.remember()
	}
}

// remember stores the tally.
func (p *plan) remember() {
	p.tally.Stats.Fetched = p.spent()
	if p.tally.Job == 0 {
		return
	}
	if b, err := json.Marshal(p.tally); err == nil {
		// Best effort: without it a restart counts from an older number.
		_ = durable.WriteFile(p.e.store.files, p.e.store.tallyPath(p), b, 0o600)
	}
}
