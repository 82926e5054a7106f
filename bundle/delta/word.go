// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"encoding/binary"

	"github.com/updaterd/updaterd/bundle/delta/rangecoder"
)

const (
	guessBits  = 13 // of a guess's place in its table
	recentLen  = 8
	mostAsked  = 5  // guesses that are tried before the word is spelled
	columnBack = 24 // bytes: an entry of the tables in ELF files
)

// The guesses what is added to a word. The first kinds go by the word's own value,
// or by the place it points to if it is a displacement: what moved there, and so what
// is added, is likely the same for all words that point there or close by.
const (
	samePlace = iota
	sameValue
	nearPlace
	nearValue
	farPlace
	farValue
	sameSeries // of differences and distances before
	recent     // that and the following: what was added to the words before
	guessKinds = recent + recentLen
)

// places tells whether a kind of guesses goes by places.
func places(kind int) bool { return kind == samePlace || kind == nearPlace || kind == farPlace }

// A memory is what was added to a word, or how far a place moved.
type memory struct {
	key, value uint32
	times      uint32 // in a row; 0: never
}

// chances of a guess depend on its kind, how often it was seen, whether the
// last guesses of the kind were right, and the instruction that the word belongs to.
const chanceCount = guessKinds * 4 * 16 * 4

// words codes what is added to words of copies.
type words struct {
	picks *rangecoder.Model
	bytes *rangecoder.Model

	tables  [recent][]memory
	recent  [recentLen]uint32
	right   [guessKinds]uint32  // whether the last guesses of a kind were right, 1 bit each
	chances [chanceCount]uint32 // of being right, in 65536ths
	last    [2]uint32           // what was added to the last two words
	spelled uint64              // whether the last words had to be spelled, 1 bit each
	used    bool
}

func newWords() words {
	w := words{
		picks: rangecoder.NewModel(4, 0, 14, mostAsked*16, 16),
		bytes: rangecoder.NewModel(5, 3, 17, wordSize*4*8, 32),
		used:  true,
	}
	for i := range w.tables {
		w.tables[i] = make([]memory, 1<<guessBits)
	}
	w.reset()
	return w
}

func (w *words) reset() {
	if !w.used {
		return
	}
	w.picks.Reset()
	w.bytes.Reset()
	for _, t := range w.tables {
		clear(t)
	}
	*w = words{picks: w.picks, bytes: w.bytes, tables: w.tables}
	for i := range w.chances {
		w.chances[i] = 1 << 14
	}
}

func (w *words) slot(kind int, key uint32) *memory {
	return &w.tables[kind][(key+uint32(kind))*0x9e3779b1>>(32-guessBits)]
}

// recall returns what is known by a key, or nothing.
func (w *words) recall(kind int, key uint32) memory {
	if m := w.slot(kind, key); m.key == key {
		return *m
	}
	return memory{}
}

// known tells what is known of a word of the source.
func (w *words) known(old uint32, from int64) uint64 {
	place := old + uint32(from)
	known := uint64(min(w.recall(sameValue, old).times, 3))
	if w.recall(samePlace, place).times > 0 {
		known |= 4
	}
	if w.recall(nearPlace, place>>6).times > 0 {
		known |= 8
	}
	return known
}

// An occasion is a word to be corrected.
type occasion struct {
	at, width int // in the chunk
	old       uint32
	from      int64
	distances uint64 // from the difference before, and of that from the one before it
	operand   uint32
	moved     uint32 // from the source to the chunk
	keys      [recent]uint32
}

// A guess is what may be added to the word.
type guess struct {
	kind   int
	delta  uint32
	chance *uint32
	index  uint32 // of the chance
}

// code corrects the word of width bytes at chunk[at].
func (w *words) code(c *rangecoder.Coder, chunk []byte, at, width int, from int64, distances uint64, want []byte) {
	w.used = true
	o := occasion{at: at, width: width, old: word(chunk[at : at+width]), from: from, distances: distances,
		operand: operand(before(chunk, at)), moved: uint32(at) - uint32(from)}
	place := o.old + uint32(from)
	o.keys = [recent]uint32{place, o.old, place >> 6, o.old >> 6, place >> 11, o.old >> 12,
		(w.last[0]*31+w.last[1])*31 + uint32(distances)}
	var list [guessKinds]guess
	guesses := w.guesses(&o, list[:0])
	wanted := uint32(0)
	if want != nil {
		wanted = signed(word(want[at:at+width])-o.old, width)
	}
	delta, ok := w.pick(c, wanted, &o, guesses)
	w.spelled <<= 1
	if !ok {
		w.spelled |= 1
		delta = signed(w.spell(c, o.old+wanted, &o, guesses, chunk)-o.old, width)
	}
	addWord(chunk[at:at+width], delta)
	w.learn(&o, guesses, delta)
}

// signed extends the sign of a number of so many bytes.
func signed(v uint32, width int) uint32 {
	drop := 8 * (wordSize - width)
	return uint32(int32(v) << drop >> drop)
}

// guesses appends all guesses to list, the most likely first.
func (w *words) guesses(o *occasion, list []guess) []guess {
	for kind := range guessKinds {
		g := guess{kind: kind}
		times := uint32(0)
		if kind < recent {
			m := w.recall(kind, o.keys[kind])
			if m.times == 0 {
				continue
			}
			g.delta, times = m.value, min(m.times, 3)
			if places(kind) {
				g.delta -= o.moved
			}
		} else if g.delta = w.recent[kind-recent]; g.delta == 0 {
			continue
		}
		g.index = ((uint32(kind)*4+times)*16+w.right[kind]&15)*4 + o.operand
		g.chance = &w.chances[g.index]
		list = append(list, g)
		for i := len(list) - 1; i > 0 && *list[i-1].chance < *g.chance; i-- {
			list[i-1], list[i] = list[i], list[i-1]
		}
	}
	return list
}

// pick codes which guess is right, if one is.
func (w *words) pick(c *rangecoder.Coder, wanted uint32, o *occasion, guesses []guess) (uint32, bool) {
	asked := uint64(0)
next:
	for i, g := range guesses {
		for _, before := range guesses[:i] {
			if before.delta == g.delta {
				continue next
			}
		}
		agreed := uint64(0)
		for _, after := range guesses[i+1:] {
			if after.delta == g.delta {
				agreed++
			}
		}
		right := uint32(0)
		if g.delta == wanted {
			right = 1
		}
		p := uint64(*g.chance >> 12)
		index := uint64(g.index)
		if w.picks.Bit(c, right, &rangecoder.Contexts{
			asked | index<<3,
			asked | p<<3 | w.spelled&7<<7 | min(agreed, 3)<<10,
			asked | index<<3 | o.distances>>6<<16,
			asked | min(agreed, 7)<<3 | uint64(g.kind)<<6 | uint64(o.operand)<<10,
		}, int(asked*16+p)) != 0 {
			return g.delta, true
		}
		if asked++; asked == mostAsked {
			break
		}
	}
	return 0, false
}

// spell codes the bytes of the corrected word, the lowest first.
func (w *words) spell(c *rangecoder.Coder, wanted uint32, o *occasion, guesses []guess, chunk []byte) uint32 {
	column := uint32(0)
	if o.at >= columnBack {
		column = binary.LittleEndian.Uint32(chunk[o.at-columnBack:])
	}
	before := before(chunk, o.at)
	best, trust := o.best(guesses)
	got := uint32(0)
	for i := range uint(o.width) {
		mask := uint32(1)<<(8*i) - 1 // of the bytes that are known
		var p [3]rangecoder.Prediction
		if i > 0 { // what is added is a small number
			delta := signed(got-o.old, int(i))
			small := uint8(0)
			if i > 1 && delta == signed(delta, int(i-1)) {
				small = 1
			}
			p[0] = rangecoder.Prediction{Byte: byte((o.old + delta) >> (8 * i)), Trust: 1 + uint8(i)*8 + small*4 + uint8(o.operand)}
		}
		for j, b := range best {
			state := uint8(1) // so far it is right
			if wrong := (b ^ got) & mask; wrong != 0 {
				state = 0
				if i > 1 && wrong>>(8*i-8) == 0 {
					state = 2 // or was in the last byte
				}
			}
			p[1+j] = rangecoder.Prediction{Byte: byte(b >> (8 * i)), Trust: trust[j]*4 + state + 1}
		}
		known := uint64(got) | uint64(i)<<24
		b := w.bytes.Byte(c, byte(wanted>>(8*i)), &rangecoder.Contexts{
			known | uint64(o.from&7)<<32,
			known | o.distances<<32,
			uint64(o.old>>(8*i)&0xff) | uint64(i)<<8 | uint64(got)<<8>>(8*i)&0xff<<16,
			known | uint64(column)<<32,
			known | before<<32,
		}, p[:], int(i)*4+int(o.operand))
		got |= uint32(b) << (8 * i)
	}
	return got
}

// best returns the two most likely guesses of what the word becomes, and how
// likely they are, from 0 to 7.
func (o *occasion) best(guesses []guess) (value [2]uint32, trust [2]uint8) {
	value = [2]uint32{o.old, o.old}
	for i, g := range guesses {
		if i > 0 && g.delta == guesses[0].delta {
			continue
		}
		j := min(i, 1)
		value[j], trust[j] = o.old+g.delta, uint8(1+*g.chance>>12)/2
		if j == 1 {
			break
		}
	}
	return value, trust
}

// learn remembers what was added.
func (w *words) learn(o *occasion, guesses []guess, delta uint32) {
	for _, g := range guesses {
		w.right[g.kind] <<= 1
		if g.delta == delta {
			w.right[g.kind] |= 1
			*g.chance += (1<<16 - *g.chance) >> 5
		} else {
			*g.chance -= *g.chance >> 5
		}
	}
	for kind, key := range o.keys {
		value := delta
		if places(kind) {
			value += o.moved
		}
		if m := w.slot(kind, key); m.key == key && m.value == value && m.times > 0 {
			m.times = min(m.times+1, 3)
		} else {
			*m = memory{key, value, 1}
		}
	}
	i := 0
	for i < recentLen-1 && w.recent[i] != delta {
		i++
	}
	copy(w.recent[1:i+1], w.recent[:i])
	w.recent[0] = delta
	w.last = [2]uint32{delta, w.last[0]}
}

// operand tells the instructions of amd64 apart whose operand is a displacement, by
// the bytes before it: 1: call or jump, 2: address relative to the program counter, 3: zero before.
func operand(before uint64) uint32 {
	switch {
	case before&0xfe == 0xe8, before&0xfff0 == 0x0f80:
		return 1
	case before&0xc7 == 5:
		return 2
	case before&0xff == 0:
		return 3
	}
	return 0
}

// word reads a little-endian word that may be short.
func word(b []byte) uint32 {
	if len(b) == wordSize {
		return binary.LittleEndian.Uint32(b)
	}
	v := uint32(0)
	for i, c := range b {
		v |= uint32(c) << (8 * i)
	}
	return v
}

// addWord adds v to the little-endian word that is b.
func addWord(b []byte, v uint32) {
	v += word(b)
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
}
