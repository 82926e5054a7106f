// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"encoding/binary"

	"github.com/updaterd/updaterd/bundle/delta/rangecoder"
)

const (
	rawPiece  = 4 << 10 // literals are told to be incompressible in such pieces
	rawLeast  = 64      // and not at all below
	hintBytes = 4 << 10 // of a literal, that the source helps with

	matchBytes = 5 // bytes that are alike where one place of the chunk predicts another
	matchMost  = 32
	matchBits  = 16
)

// literals codes the bytes that are not copied.
type literals struct {
	kinds numbers // of pieces: 1 is raw
	runs  numbers // of bytes that are as predicted
	model *rangecoder.Model

	places  []int32 // hash of matchBytes bytes -> where the last such bytes end
	indexed int     // bytes of the chunk that are in places
	learnt  int     // bytes of the chunk that the model has learnt
	match   int     // place in the chunk that predicts the next byte
	alike   int     // bytes before it that are as those before the next byte; 0: no prediction
	right   uint32  // whether the source predicted the bytes before, 1 bit each
}

func newLiterals() literals {
	return literals{
		kinds:  newNumbers(),
		runs:   newNumbers(),
		model:  rangecoder.NewModel(5, 2, 19, 12*8, 32),
		places: make([]int32, 1<<matchBits),
	}
}

func (l *literals) reset() {
	l.kinds.reset()
	l.runs.reset()
	l.model.Reset()
	if l.indexed > 0 {
		clear(l.places)
	}
	*l = literals{kinds: l.kinds, runs: l.runs, model: l.model, places: l.places}
}

// code codes chunk[at:end]. hint is what the source has where the copy before would go
// on. The bytes are known if want is not nil.
func (l *literals) code(c *rangecoder.Coder, chunk []byte, at, end int, want, hint []byte) {
	for start := at; at < end; {
		piece := min(end-at, rawPiece)
		raw := uint64(0)
		if piece >= rawLeast {
			if want != nil && l.random(want[at:at+piece]) && !l.repeats(want, at, at+piece) {
				raw = 1
			}
			raw = l.kinds.code(c, raw, 0)
		}
		h := hint[min(at-start, len(hint)):]
		if raw == 1 {
			for ; piece > 0; piece-- {
				var b byte
				if want != nil {
					b = want[at]
				}
				chunk[at] = c.Byte(b)
				at++
			}
			l.learnt = at
			continue
		}
		l.learn(chunk, at)
		l.piece(c, chunk, at, at+piece, want, h)
		at += piece
		l.learnt = at
	}
}

// learnBytes of what is copied before a literal tell a little about it.
const learnBytes = 32

func (l *literals) learn(chunk []byte, at int) {
	l.piece(nil, chunk, max(l.learnt, at-learnBytes), at, chunk, nil)
}

// piece codes chunk[at:end] with the model, or only learns it if there is no coder.
func (l *literals) piece(c *rangecoder.Coder, chunk []byte, at, end int, want, hint []byte) {
	l.alike, l.right = 0, 0
	var predictions [2]rangecoder.Prediction
	for start := at; at < end; at++ {
		if c != nil {
			l.find(chunk, at)
		}
		if l.alike == matchMost {
			if at += l.run(c, chunk, at, end, want); at == end {
				break
			}
		}
		predictions[0] = rangecoder.Prediction{}
		set := 0
		if l.alike > 0 {
			predictions[0] = rangecoder.Prediction{Byte: chunk[l.match], Trust: uint8(min(l.alike, matchMost))}
			set = 4
			if l.alike > 15 {
				set = 8
			}
		}
		predictions[1] = rangecoder.Prediction{}
		hinted := uint64(0)
		if i := at - start; i < len(hint) {
			predictions[1] = rangecoder.Prediction{Byte: hint[i], Trust: uint8(1 + l.right&15 + uint32(min(i, 2))*16)}
			hinted = 1<<8 | uint64(hint[i])
			set += 1 + int(l.right&1)
			if l.right&7 == 7 {
				set++
			}
		}
		before := before(chunk, at)
		var b byte
		if want != nil {
			b = want[at]
		}
		b = l.model.Byte(c, b, &rangecoder.Contexts{
			before & 0xff,
			before & 0xffff,
			before & 0xffffff,
			before & 0xffffffff,
			hinted<<8 | before&0xff,
		}, predictions[:], set)
		chunk[at] = b
		if l.alike > 0 {
			if chunk[l.match] == b {
				l.alike++
				l.match++
			} else {
				l.alike = 0
			}
		}
		if i := at - start; i < len(hint) {
			l.right <<= 1
			if hint[i] == b {
				l.right |= 1
			}
		}
	}
}

// run codes how many bytes from chunk[at] on are as those in the place that predicts
// them, makes them, and returns their number. It is asked where so many before
// were that long ones are likely.
func (l *literals) run(c *rangecoder.Coder, chunk []byte, at, end int, want []byte) int {
	n := 0
	if want != nil {
		n = common(want[l.match:], want[at:end])
	}
	n = int(min(l.runs.code(c, uint64(n), 0), uint64(end-at)))
	for i := range n { // the two may overlap
		chunk[at+i] = chunk[l.match+i]
	}
	l.match += n
	l.alike = matchMost + 1
	return n
}

// find looks for a place of the chunk that predicts chunk[at], if there is none.
func (l *literals) find(chunk []byte, at int) {
	l.index(chunk, at)
	if l.alike > 0 || at < matchBytes {
		return
	}
	place := int(l.places[matchHash(chunk[at-matchBytes:])])
	n := 0
	for n < min(place, matchMost) && chunk[place-n-1] == chunk[at-n-1] {
		n++
	}
	if n >= matchBytes {
		l.match, l.alike = place, n
	}
}

// index takes in the bytes that end before a place.
func (l *literals) index(chunk []byte, at int) {
	for ; l.indexed+matchBytes < at; l.indexed++ {
		l.places[matchHash(chunk[l.indexed:])] = int32(l.indexed + matchBytes)
	}
}

func matchHash(b []byte) uint32 {
	v := uint64(binary.LittleEndian.Uint32(b)) | uint64(b[4])<<32
	return uint32(v * 0x9e3779b97f4a7c15 >> (64 - matchBits))
}

// random tells whether b looks like compressed or encrypted bytes: all values are
// about equally frequent.
func (l *literals) random(b []byte) bool {
	var count [256]int
	for _, c := range b {
		count[c]++
	}
	squares := 0
	for _, n := range count {
		squares += n * n
	}
	n := len(b)
	return squares <= (n+n*n/256)*17/16
}

// repeats tells whether chunk[at:end] has anything of what comes before.
func (l *literals) repeats(chunk []byte, at, end int) bool {
	const step = 2 * matchBytes
	l.index(chunk, at)
	for ; at+step <= end; at += step {
		place := int(l.places[matchHash(chunk[at:])])
		if place > 0 && common(chunk[place-matchBytes:], chunk[at:]) >= step {
			return true
		}
	}
	return false
}

// before is the eight bytes before chunk[at], the last one lowest; zeros, where the chunk has none.
func before(chunk []byte, at int) uint64 {
	if at >= 8 {
		return binary.BigEndian.Uint64(chunk[at-8:])
	}
	v := uint64(0)
	for _, b := range chunk[:at] {
		v = v<<8 | uint64(b)
	}
	return v
}
