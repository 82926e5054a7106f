// SPDX-License-Identifier: Apache-2.0

package update

import (
	"math"
	"sync"
	"time"
)

// meter turns progress into a rate and a time left.
type meter struct {
	mu    sync.Mutex
	p     Progress
	rate  float64 // bytes of the stage per second, averaged
	from  Progress
	at    time.Time // when from was
	moves bool      // there was progress since the first report of the stage
	shown time.Time // when update last asked for a notification
}

const (
	meterStep   = time.Second            // one sample
	meterMemory = 10 * time.Second       // samples older than this hardly count
	meterNotify = 250 * time.Millisecond // at most one notification in this time
)

// start begins a stage.
func (m *meter) start(stage string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := Progress{Stage: stage, Fetched: m.p.Fetched}
	m.p, m.shown = p, time.Time{}
	m.measure(p, time.Now())
}

// measure begins a new rate with a report.
func (m *meter) measure(p Progress, at time.Time) {
	m.from, m.rate, m.at, m.moves = p, 0, at, false
}

// reset forgets the job.
func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p, m.from, m.rate = Progress{}, Progress{}, 0
}

// update takes a report and tells whether it is time to show it.
func (m *meter) update(p Progress) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	switch {
	case p.Stage != m.p.Stage || p.Done < m.from.Done:
		m.shown = time.Time{}
		m.measure(p, now)
	case m.p.Total == 0:
		m.measure(p, now) // its first report tells what was there already
	case !m.moves && p.Done > m.from.Done:
		// What came before the first byte, such as a look at the slot, was no transfer.
		m.measure(p, now)
		m.moves = true
	}
	m.p = p
	if d := now.Sub(m.at); m.moves && d >= meterStep {
		sample := float64(p.Done-m.from.Done) / d.Seconds()
		weight := 1 - math.Exp(-d.Seconds()/meterMemory.Seconds())
		if m.rate == 0 {
			weight = 1
		}
		m.rate += weight * (sample - m.rate)
		m.from, m.at = p, now
	}
	if now.Sub(m.shown) < meterNotify && p.Done != p.Total {
		return false
	}
	m.shown = now
	return true
}

// read returns the progress, the rate in bytes per second and the time left (0 = unknown).
func (m *meter) read() (p Progress, rate int64, left time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.rate
	// A link that died makes no reports: what is shown must fade all the same.
	if silent := time.Since(m.at) - 2*meterStep; silent > 0 {
		now *= math.Exp(-silent.Seconds() / meterMemory.Seconds())
	}
	if now < 1 {
		return m.p, 0, 0
	}
	seconds := float64(max(0, m.p.Total-m.p.Done)) / now
	if seconds < 1e9 {
		left = time.Duration(seconds * float64(time.Second)).Round(time.Second)
	}
	return m.p, int64(now), left
}
