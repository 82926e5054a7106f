// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/updaterd/updaterd/updaterd/internal/proof/medium"
)

// sampled is how many states are tried where there are more: of unsynced
// writes to slots and files. For the environment all are.
const sampled = 24

// A point is a state that a power cut may leave, and what was judged good by then.
type point struct {
	state  *medium.State
	judged []int
	op     int // how many steps were made
	after  medium.Op
}

// tally counts what was tried.
type tally struct{ points, states, lives, doubles int }

func (t *tally) add(o tally) {
	t.points += o.points
	t.states += o.states
	t.lives += o.lives
	t.doubles += o.doubles
}

func (t tally) String() string {
	return fmt.Sprintf("%d cut points, %d different states, %d of them lived on from, %d second cuts", t.points, t.states, t.lives, t.doubles)
}

// cuts are all the states that a power cut may leave in a log: each once.
func (b board) cuts(start *medium.State, log []medium.Op, seed uint64) (points []point, n tally) {
	rng := rand.New(rand.NewPCG(seed, 0))
	r := medium.NewReplay(start)
	seen := map[string]bool{}
	for i, o := range log {
		r.Step(o)
		if o.Kind == medium.Mark {
			continue
		}
		n.points++
		judged := judgedIn(log[:i+1])
		for s := range r.Cuts(rng, medium.Rules{Limit: sampled, Large: b.large, Exhaustive: func(disk string) bool { return disk == envDisk }}) {
			if k := key(s, judged); !seen[k] {
				seen[k] = true
				points = append(points, point{s, judged, i + 1, o})
			}
		}
	}
	n.states = len(points)
	return points, n
}

// A violation is a state in which an invariant does not hold, or from which the
// device does not get to where it should.
type violation struct {
	point
	faults []string
	lived  []medium.Op
}

func (v violation) String() string {
	return fmt.Sprintf("cut after step %d, %v:\n\t%s\n%s", v.op, v.after, strings.Join(v.faults, "\n\t"), last(v.lived, 40))
}

// tried checks the states as they are, and lets the device go on from each; but
// from those only once that differ in nothing that can be read. It returns what
// the device did from there. It ends early once until says so.
func (b board) tried(t *testing.T, sc scenario, points []point, epoch int, until func(faults []string) bool) (bad []violation, logs map[int][]medium.Op) {
	live := make([]bool, len(points))
	seen := map[string]bool{}
	for i, p := range points {
		k := key(b.plain(p.state), p.judged)
		live[i], seen[k] = !seen[k], true
	}
	found := make([]*violation, len(points))
	logs = map[int][]medium.Op{}
	next := make(chan int)
	var mu sync.Mutex
	var enough atomic.Bool
	var workers sync.WaitGroup
	for w := range runtime.GOMAXPROCS(0) {
		own := b
		own.lock = fmt.Sprint(b.lock, w)
		workers.Go(func() {
			for i := range next {
				p := points[i]
				d := own.newDevice(p.state, sc.good, p.judged, epoch)
				if enough.Load() {
					continue
				}
				if d.check(p.state); live[i] && len(d.faults) == 0 {
					d.settle(t, sc)
				}
				mu.Lock()
				if len(d.faults) > 0 {
					found[i] = &violation{p, d.faults, d.m.Log()}
					enough.Store(enough.Load() || until != nil && until(d.faults))
				}
				if live[i] {
					logs[i] = d.m.Log()
				}
				mu.Unlock()
			}
		})
	}
	for i := range points {
		next <- i
	}
	close(next)
	workers.Wait()
	for _, v := range found {
		if v != nil {
			bad = append(bad, *v)
		}
	}
	return bad, logs
}

// again cuts the power a second time, somewhere in what the device did after a cut.
func (b board) again(points []point, logs map[int][]medium.Op, seed uint64) (second []point) {
	rng := rand.New(rand.NewPCG(seed, 1))
	for i, p := range points {
		log := logs[i]
		if len(log) == 0 || rng.IntN(8) > 0 {
			continue
		}
		r, at := medium.NewReplay(p.state), 1+rng.IntN(min(len(log), 200))
		for _, o := range log[:at] {
			r.Step(o)
		}
		judged := p.judged
		for _, version := range judgedIn(log[:at]) {
			if !slices.Contains(judged, version) {
				judged = append(slices.Clone(judged), version)
			}
		}
		for s := range r.Cuts(rng, medium.Rules{Limit: 3, Large: b.large}) {
			second = append(second, point{s, judged, at, log[at-1]})
		}
	}
	return second
}

func report(t *testing.T, bad []violation) {
	t.Helper()
	for i, v := range bad {
		if i == 3 {
			t.Errorf("and %d more", len(bad)-3)
			return
		}
		t.Errorf("%v", v)
	}
}

// prove tries all the cuts in a log of a scenario.
func (b board) prove(t *testing.T, sc scenario, start *medium.State, log []medium.Op, seed uint64) (n tally, bad []violation) {
	points, n := b.cuts(start, log, seed)
	bad, logs := b.tried(t, sc, points, 1, nil)
	n.lives = len(logs)
	if len(bad) > 0 {
		return n, bad
	}
	second := b.again(points, logs, seed)
	bad, _ = b.tried(t, sc, second, 2, nil)
	n.doubles = len(second)
	return n, bad
}

// TestEveryCut cuts the power after every step of every scenario.
func TestEveryCut(t *testing.T) {
	var total tally
	begin := time.Now()
	for i, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			b := small
			if i%3 == 2 {
				b = large
			}
			b.lock = t.TempDir() + "/lock"
			start, log := b.recorded(t, sc)
			n, bad := b.prove(t, sc, start, log, uint64(i))
			report(t, bad)
			t.Log(n)
			total.add(n)
		})
	}
	fmt.Printf("power cuts: %v, in %d scenarios, in %.0f s\n", total, len(scenarios), time.Since(begin).Seconds())
}
