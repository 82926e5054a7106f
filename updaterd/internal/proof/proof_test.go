// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
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

// cuts are all the states that a power cut may leave in a log, from a step on:
// each once.
func (b board) cuts(start *medium.State, log []medium.Op, seed uint64, from int) (points []point, n tally) {
	rng := rand.New(rand.NewPCG(seed, 0))
	r := medium.NewReplay(start)
	seen := map[string]bool{}
	for i, o := range log {
		if r.Step(o); o.Kind == medium.Mark || i < from {
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

// A trial of states.
type trial struct {
	board
	*testing.T
	sc scenario
	// again is the seed of the second cuts that are made in some of the lives.
	again uint64
	// until, if not nil, ends it early.
	until func(faults []string) bool

	mu      sync.Mutex
	enough  bool
	bad     []violation
	lives   int
	doubles int
}

// try checks the states as they are, and lets the device go on from each; but
// from those only once that differ in nothing that can be read.
func (tr *trial) try(points []point) {
	live := make([]bool, len(points))
	seen := map[string]bool{}
	for i, p := range points {
		k := key(tr.plain(p.state), p.judged)
		live[i], seen[k] = !seen[k], true
	}
	next := make(chan int)
	var workers sync.WaitGroup
	for w := range runtime.GOMAXPROCS(0) {
		b := tr.board
		b.lock = fmt.Sprint(b.lock, w)
		workers.Go(func() {
			for i := range next {
				tr.one(b, points[i], live[i], uint64(i))
			}
		})
	}
	for i := range points {
		next <- i
	}
	close(next)
	workers.Wait()
	slices.SortStableFunc(tr.bad, func(a, b violation) int { return a.op - b.op })
}

// one tries one state, and in one of eight lives a second cut.
func (tr *trial) one(b board, p point, live bool, number uint64) {
	if tr.ended() {
		return
	}
	d := b.newDevice(p.state, tr.sc.good, p.judged, 1)
	if d.check(p.state); live && len(d.faults) == 0 {
		d.settle(tr.T, tr.sc)
	}
	tr.add(violation{p, d.faults, d.m.Log()}, live, 0)
	if rng := rand.New(rand.NewPCG(tr.again, number)); live && tr.again > 0 && len(d.faults) == 0 && rng.IntN(8) == 0 {
		for _, second := range p.again(rng, d.m.Log(), b.large) {
			d := b.newDevice(second.state, tr.sc.good, second.judged, 2)
			if d.check(second.state); len(d.faults) == 0 {
				d.settle(tr.T, tr.sc)
			}
			tr.add(violation{second, d.faults, d.m.Log()}, false, 1)
		}
	}
}

func (tr *trial) ended() bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.enough
}

func (tr *trial) add(v violation, live bool, doubles int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if live {
		tr.lives++
	}
	tr.doubles += doubles
	if len(v.faults) > 0 {
		tr.bad = append(tr.bad, v)
		tr.enough = tr.enough || tr.until != nil && tr.until(v.faults)
	}
}

// again cuts the power a second time, somewhere in what the device did after p.
func (p point) again(rng *rand.Rand, log []medium.Op, large bool) (second []point) {
	if len(log) == 0 {
		return nil
	}
	r, at := medium.NewReplay(p.state), 1+rng.IntN(min(len(log), 200))
	for _, o := range log[:at] {
		r.Step(o)
	}
	judged := slices.Clone(p.judged)
	for _, version := range judgedIn(log[:at]) {
		if !slices.Contains(judged, version) {
			judged = append(judged, version)
		}
	}
	for s := range r.Cuts(rng, medium.Rules{Limit: 3, Large: large}) {
		second = append(second, point{s, judged, at, log[at-1]})
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

// TestEveryCut cuts the power after every step of every scenario.
func TestEveryCut(t *testing.T) {
	t.Parallel()
	var total tally
	begin := time.Now()
	for i, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			b := small
			if i%3 == 2 {
				b = large
			}
			b.lock, b.order, b.stores = t.TempDir()+"/lock", sc.order, sc.stores
			start, log := b.recorded(t, sc)
			from := 0
			if len(sc.releases) > 1 {
				// The first update is a scenario of its own.
				from = slices.IndexFunc(log, func(o medium.Op) bool { return strings.HasSuffix(o.To, "/history.jsonl") })
			}
			points, n := b.cuts(start, log, uint64(i), from)
			tr := trial{board: b, T: t, sc: sc, again: uint64(i + 1)}
			tr.try(points)
			report(t, tr.bad)
			n.lives, n.doubles = tr.lives, tr.doubles
			total.add(n)
		})
	}
	fmt.Printf("power cuts: %v, in %d scenarios, in %.0f s\n", total, len(scenarios), time.Since(begin).Seconds())
}

// What is proven is the same in every run: so are the steps of a scenario.
func TestSameStepsAgain(t *testing.T) {
	b := small
	b.lock = t.TempDir() + "/lock"
	for _, sc := range scenarios {
		b.order, b.stores = sc.order, sc.stores
		_, first := b.recorded(t, sc)
		for range 4 {
			_, again := b.recorded(t, sc)
			for i := range max(len(first), len(again)) {
				if i >= len(first) || i >= len(again) || !reflect.DeepEqual(first[i], again[i]) {
					t.Fatalf("%s: step %d differs:\n%s\n%s", sc.name, i+1, last(first[:min(i+1, len(first))], 3), last(again[:min(i+1, len(again))], 3))
				}
			}
		}
	}
}
