// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// maxRetryAfter bounds how long a server can make us wait between two tries.
const maxRetryAfter = 5 * time.Minute

// Retry is the policy for a link that fails. Its zero value never gives up:
// the caller's context decides.
type Retry struct {
	// Stall is how long to go on without a single new byte; 0 means for ever.
	Stall time.Duration
	// First and Longest are the pauses after the first failure and after many;
	// they double in between. Zero means 1 s and 1 min.
	First, Longest time.Duration
	// Waiting, unless nil, is told why a range waits for its next try, and nil
	// once that is over. It is called by whoever reads.
	Waiting func(why error)
}

func (r Retry) withDefaults() Retry {
	if r.First <= 0 {
		r.First = time.Second
	}
	if r.Longest <= 0 {
		r.Longest = time.Minute
	}
	r.Longest = max(r.First, r.Longest)
	return r
}

// A pacer decides when to try again.
type pacer struct {
	policy Retry
	fails  int       // since the last progress
	since  time.Time // of the first of them
}

// progress tells that bytes came.
func (p *pacer) progress() {
	if p.fails > 0 {
		p.tell(nil)
	}
	p.fails = 0
}

func (p *pacer) tell(why error) {
	if p.policy.Waiting != nil {
		p.policy.Waiting(why)
	}
}

// wait pauses before the next try. It returns an error if there must not be
// one: cause itself if it is final or the policy is spent, or, if ctx ends, an
// error that also tells what was being waited for.
func (p *pacer) wait(ctx context.Context, cause error) (end error) {
	defer func() {
		if end != nil && p.fails > 0 {
			p.tell(nil)
		}
	}()
	if ctx.Err() != nil {
		return ended(ctx, cause)
	}
	var e *Error
	if !errors.As(cause, &e) || e.kind != transient {
		return cause
	}
	if p.fails == 0 {
		p.since = time.Now()
	}
	pause := p.pause(e.after)
	p.fails++
	if left := p.policy.Stall - time.Since(p.since); p.policy.Stall > 0 && pause > left {
		return &Error{Ref: e.Ref, Status: e.Status, kind: final,
			err: fmt.Errorf("gave up after %v without a byte: %w", p.policy.Stall, e.err)}
	}
	p.tell(e)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ended(ctx, cause)
	case <-timer.C:
		return nil
	}
}

// pause is how long to wait after the next failure: half of it is fixed and
// half random, so that a fleet does not come back all at once.
func (p *pacer) pause(after time.Duration) time.Duration {
	d := p.policy.First
	for range p.fails {
		if d *= 2; d >= p.policy.Longest {
			d = p.policy.Longest
			break
		}
	}
	d = d/2 + rand.N(d/2+1)
	return max(d, min(after, maxRetryAfter))
}

// ended is the error for a context that is over. A cancelled one is the
// caller's wish; one that ran out of time is the network's fault.
func ended(ctx context.Context, cause error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		var e *Error
		if errors.As(cause, &e) {
			return &Error{Ref: e.Ref, Status: e.Status, kind: final, err: fmt.Errorf("no answer in time: %w", errors.Join(ctx.Err(), e.err))}
		}
	}
	return fmt.Errorf("fetch: %w", context.Cause(ctx))
}
