// SPDX-License-Identifier: Apache-2.0

package medium

import (
	"bytes"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
)

// A Replay goes through a log and knows at each point what is durable and what
// is not yet.
type Replay struct {
	durable *State
	current *State
	writes  map[string][]Op // to a disk, since its last flush
	content map[int]bool    // files with content that was not synced
	names   map[int][]Op    // changes in a directory, since it was synced
}

// NewReplay starts with a state that is durable.
func NewReplay(s *State) *Replay {
	r := &Replay{durable: s.Clone(), current: s.Clone()}
	r.clear()
	return r
}

func (r *Replay) clear() {
	r.writes, r.content, r.names = map[string][]Op{}, map[int]bool{}, map[int][]Op{}
}

// Step goes on by one step of the log.
func (r *Replay) Step(o Op) {
	r.current.apply(o)
	switch o.Kind {
	case DiskWrite:
		r.writes[o.Path] = append(r.writes[o.Path], o)
	case DiskSync:
		for _, w := range r.writes[o.Path] {
			r.durable.apply(w)
		}
		delete(r.writes, o.Path)
	case Create, Mkdir:
		r.durable.born(o)
		r.names[o.dir] = append(r.names[o.dir], o)
	case Rename, Remove:
		r.names[o.dir] = append(r.names[o.dir], o)
	case Write:
		r.content[o.node] = true
	case Sync:
		r.durable.nodes[o.node] = r.current.nodes[o.node]
		delete(r.content, o.node)
	case DirSync:
		for _, c := range r.names[o.dir] {
			r.durable.link(c)
		}
		delete(r.names, o.dir)
	case Reset:
		if o.Note == crash {
			r.current = r.durable.Clone()
		} else {
			r.durable = r.current.Clone()
		}
		r.clear()
	}
}

func (r Rules) sector() int {
	if r.Large {
		return page
	}
	return Sector
}

// A choice is what one thing on the medium may have become.
type choice func(*State)

// Rules say how much of what is possible is tried.
type Rules struct {
	// Limit is how many states of one thing, and of all together, are tried
	// where there are more.
	Limit int
	// Exhaustive tells the disks of which all are tried.
	Exhaustive func(disk string) bool
	// Large is for disks that write sectors of 4 KiB.
	Large bool
}

// Cuts are the states that a power cut at this point may leave, among them the
// one in which nothing more and the one in which all became durable. Where there
// are more than the limit, it is a sample of that size, which rng chooses.
func (r *Replay) Cuts(rng *rand.Rand, rules Rules) iter.Seq[*State] {
	limit := rules.Limit
	var things [][]choice
	for _, name := range slices.Sorted(maps.Keys(r.writes)) {
		n := limit
		if rules.Exhaustive != nil && rules.Exhaustive(name) {
			n = 1 << 20
		}
		things = append(things, r.diskChoices(name, rng, n, rules.sector()))
	}
	for _, id := range slices.Sorted(maps.Keys(r.content)) {
		things = append(things, r.contentChoices(id, rng, limit))
	}
	for _, id := range slices.Sorted(maps.Keys(r.names)) {
		things = append(things, r.nameChoices(id, rng, limit))
	}
	return func(yield func(*State) bool) {
		each(things, rng, limit, func(picked []choice) bool {
			s := r.durable.Clone()
			for _, c := range picked {
				c(s)
			}
			return yield(s)
		})
	}
}

// each calls yield with one choice of each thing: all combinations, or, if two
// or more things have too many, a sample of them: each thing's choices once,
// with others of the rest at random.
func each(things [][]choice, rng *rand.Rand, limit int, yield func([]choice) bool) {
	total, longest := 1, 1
	for _, t := range things {
		total = min(total*len(t), 1<<30)
		longest = max(longest, len(t))
	}
	picked := make([]choice, len(things))
	if total <= max(limit, longest) {
		for n := range total {
			for i, t := range things {
				picked[i] = t[n%len(t)]
				n /= len(t)
			}
			if !yield(picked) {
				return
			}
		}
		return
	}
	for _, pick := range []func(t []choice) choice{
		func(t []choice) choice { return t[0] },        // nothing
		func(t []choice) choice { return t[len(t)-1] }, // all
	} {
		for i, t := range things {
			picked[i] = pick(t)
		}
		if !yield(picked) {
			return
		}
	}
	for n := range max(limit, longest) {
		for i, t := range things {
			picked[i] = t[rng.IntN(len(t))]
			if len(t) == longest {
				picked[i] = t[n%len(t)]
			}
		}
		if !yield(picked) {
			return
		}
	}
}

// diskChoices are the contents that a disk's unflushed writes may leave.
func (r *Replay) diskChoices(name string, rng *rand.Rand, limit, sector int) []choice {
	// What each sector may hold: first what is durable, last what was written last.
	var at []int64
	values := map[int64][][]byte{}
	for _, w := range r.writes[name] {
		for i := 0; i < len(w.Data); i += sector {
			off, data := w.Off+int64(i), w.Data[i:min(i+sector, len(w.Data))]
			if values[off] == nil {
				values[off] = [][]byte{r.durable.peek(name, off, len(data))}
				at = append(at, off)
			}
			if !bytes.Equal(values[off][len(values[off])-1], data) {
				values[off] = append(values[off], data)
			}
		}
	}
	slices.Sort(at)
	at = slices.DeleteFunc(at, func(off int64) bool { return len(values[off]) == 1 })
	total := 1
	for _, off := range at {
		total = min(total*len(values[off]), 1<<30)
	}
	mix := func(pick func(off int64, n int) int) choice {
		var patches []Op
		for _, off := range at {
			patches = append(patches, Op{Off: off, Data: values[off][pick(off, len(values[off]))]})
		}
		return func(s *State) {
			for _, p := range patches {
				s.Patch(name, p.Off, p.Data)
			}
		}
	}
	if total <= limit {
		var list []choice
		for n := range total {
			list = append(list, mix(func(_ int64, k int) int {
				v := n % k
				n /= k
				return v
			}))
		}
		return list
	}
	return r.sample(name, rng, limit, at, mix)
}

// sample chooses some of the contents that unflushed writes may leave: none and
// all of them, all but one and one alone, the last one torn, and any sectors.
func (r *Replay) sample(name string, rng *rand.Rand, limit int, at []int64, mix func(func(int64, int) int) choice) []choice {
	writes := r.writes[name]
	list := []choice{mix(func(int64, int) int { return 0 })}
	inside := func(w Op, off int64) bool { return off >= w.Off && off < w.Off+int64(len(w.Data)) }
	last := writes[len(writes)-1]
	for n := 1; len(list) < limit-1; n++ {
		w := writes[rng.IntN(len(writes))]
		torn := last.Off + rng.Int64N(int64(len(last.Data)))/Sector*Sector
		grain := int64(Sector)
		if n%8 >= 4 {
			grain = page
		}
		kept := map[int64]bool{}
		for _, off := range at {
			if _, known := kept[off/grain]; !known {
				kept[off/grain] = rng.IntN(2) == 0
			}
		}
		list = append(list, mix(func(off int64, k int) int {
			now := k - 1
			switch n % 4 {
			case 0: // that one was lost, what was written before it stays
				if inside(w, off) {
					now = max(0, k-2)
				}
			case 1: // that one alone came through
				if !inside(w, off) {
					now = 0
				}
			case 2: // the last one is torn
				if inside(last, off) && off >= torn {
					now = max(0, k-2)
				}
			case 3: // any sectors
				if !kept[off/grain] {
					now = rng.IntN(k)
				}
			}
			return now
		}))
	}
	return append(list, mix(func(_ int64, k int) int { return k - 1 }))
}

func (s *State) peek(name string, off int64, n int) []byte {
	return s.disks[name][off/page].Data[off%page:][:n]
}

// contentChoices are the contents that a file may have that was not synced.
func (r *Replay) contentChoices(id int, rng *rand.Rand, limit int) []choice {
	was, now := r.durable.nodes[id].data, r.current.nodes[id].data
	lengths := []int{len(was)}
	for n := min(len(was), len(now)) / Sector * Sector; n < len(now); n += Sector {
		lengths = append(lengths, n)
	}
	lengths = append(lengths, len(now))
	put := func(b []byte) choice { return func(s *State) { s.nodes[id] = &node{data: b} } }
	// With a length come any sectors of it: as they were, zero, or new.
	content := func(length int, pick func(sector int) int) []byte {
		b := make([]byte, length)
		for i := 0; i < length; i += Sector {
			end := min(i+Sector, length)
			switch pick(i / Sector) {
			case 0:
				copy(b[i:end], was[min(i, len(was)):min(end, len(was))])
			case 1:
				copy(b[i:end], now[min(i, len(now)):min(end, len(now))])
			}
		}
		return b
	}
	total := 0
	for _, n := range lengths {
		ways := 1
		for i := 0; i < n; i += Sector {
			ways = min(ways*3, 1<<20)
		}
		total += ways
	}
	list := []choice{put(was)}
	if total > limit {
		for len(list) < limit-1 {
			list = append(list, put(content(lengths[rng.IntN(len(lengths))], func(int) int { return rng.IntN(3) })))
		}
		return append(list, put(now))
	}
	for _, n := range lengths {
		ways := 1
		for i := 0; i < n; i += Sector {
			ways *= 3
		}
		for way := range ways {
			list = append(list, put(content(n, func(int) int {
				v := way % 3
				way /= 3
				return v
			})))
		}
	}
	return append(list, put(now))
}

// nameChoices are what a directory may hold that was not synced.
func (r *Replay) nameChoices(id int, rng *rand.Rand, limit int) []choice {
	changes := r.names[id]
	subset := func(pick func(i int) bool) choice {
		var some []Op
		for i, c := range changes {
			if pick(i) {
				some = append(some, c)
			}
		}
		return func(s *State) {
			for _, c := range some {
				s.link(c)
			}
		}
	}
	var list []choice
	if n := len(changes); n < 20 && 1<<n <= limit {
		for set := range 1 << n {
			list = append(list, subset(func(i int) bool { return set>>i&1 == 1 }))
		}
		return list
	}
	for n := range len(changes) {
		list = append(list, subset(func(i int) bool { return i < n }))
	}
	for len(list) < limit-1 {
		list = append(list, subset(func(int) bool { return rng.IntN(2) == 0 }))
	}
	return append(list, subset(func(int) bool { return true }))
}

// Durable is the state in which nothing is left of what was not synced.
func (r *Replay) Durable() *State { return r.durable.Clone() }
