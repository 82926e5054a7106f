// SPDX-License-Identifier: Apache-2.0

package deflate

import (
	"errors"
	"math/bits"
)

// ErrBlock is returned for what is no deflate block, or none that can be
// expanded and restored.
var ErrBlock = errors.New("no deflate block that can be expanded")

// Numbers of RFC 1951.
const (
	stored  = 0
	fixed   = 1
	dynamic = 2

	maxBits      = 15  // longest code
	maxLiterals  = 286 // symbols for literals and lengths
	maxDistances = 30
	endOfBlock   = 256
	firstLength  = 257
	minMatch     = 3
	maxMatch     = 258
)

// lengthOrder is how the lengths of the length codes follow each other.
var lengthOrder = [19]byte{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

const fastBits = 10

// A decodeTable finds symbols by their codes.
type decodeTable struct {
	fast  [1 << fastBits]uint16 // by the next bits: symbol<<4 | length, or 0
	count [maxBits + 1]uint16   // of codes of each length
	syms  [288]uint16           // by length, then by value
}

// build makes the table for code lengths; more codes than fit are an error.
func (t *decodeTable) build(lengths []byte) error {
	count, next, err := canonical(lengths)
	if err != nil {
		return err
	}
	t.count = count
	var at [maxBits + 2]uint16
	for n := 1; n <= maxBits; n++ {
		at[n+1] = at[n] + count[n]
	}
	clear(t.fast[:])
	for s, n := range lengths {
		if n == 0 {
			continue
		}
		t.syms[at[n]] = uint16(s)
		at[n]++
		if n <= fastBits {
			for i := int(reverse(next[n], n)); i < len(t.fast); i += 1 << n {
				t.fast[i] = uint16(s)<<4 | uint16(n)
			}
		}
		next[n]++
	}
	return nil
}

// canonical counts the codes of each length and gives the lowest of them.
func canonical(lengths []byte) (count, first [maxBits + 1]uint16, err error) {
	for _, n := range lengths {
		count[n]++
	}
	count[0] = 0
	left, code := 1, uint16(0)
	for n := 1; n <= maxBits; n++ {
		if left = left<<1 - int(count[n]); left < 0 {
			return count, first, ErrBlock
		}
		code = (code + count[n-1]) << 1
		first[n] = code
	}
	return count, first, nil
}

// reverse turns a code round: it lies in the stream with its first bit lowest.
func reverse(code uint16, n byte) uint16 { return bits.Reverse16(code) >> (16 - n) }

// slow finds a code that is longer than fastBits.
func (t *decodeTable) slow(peek uint64) (symbol int, n uint, ok bool) {
	code, first, index := 0, 0, 0
	for n := 1; n <= maxBits; n++ {
		code |= int(peek & 1)
		peek >>= 1
		c := int(t.count[n])
		if code-first < c {
			return int(t.syms[index+code-first]), uint(n), true
		}
		index += c
		first = (first + c) << 1
		code <<= 1
	}
	return 0, 0, false
}

// An encodeTable has the code of each symbol, first bit lowest.
type encodeTable struct {
	code [288]uint16
	len  [288]byte // 0: there is none
}

func (t *encodeTable) build(lengths []byte) error {
	_, next, err := canonical(lengths)
	if err != nil {
		return err
	}
	clear(t.len[:])
	for s, n := range lengths {
		if n > 0 {
			t.len[s], t.code[s] = n, reverse(next[n], n)
			next[n]++
		}
	}
	return nil
}

// fixedLengths are the code lengths of fixed blocks.
func fixedLengths() (literals, distances []byte) {
	literals = make([]byte, 288)
	for i := range literals {
		switch {
		case i < 144:
			literals[i] = 8
		case i < 256:
			literals[i] = 9
		case i < 280:
			literals[i] = 7
		default:
			literals[i] = 8
		}
	}
	distances = make([]byte, 32)
	for i := range distances {
		distances[i] = 5
	}
	return literals, distances
}

// lengthSymbol splits a match length, less 3, into a symbol, less 257, and extra bits.
func lengthSymbol(l int) (symbol int, extra uint, n uint) {
	switch {
	case l == maxMatch-minMatch:
		return 28, 0, 0
	case l < 8:
		return l, 0, 0
	}
	n = uint(bits.Len(uint(l))) - 3
	return int(4*n+4) + l>>n&3, uint(l) & (1<<n - 1), n
}

// lengthBase is the reverse: the smallest length, less 3, and how many extra bits follow.
func lengthBase(symbol int) (base int, n uint) {
	switch {
	case symbol == 28:
		return maxMatch - minMatch, 0
	case symbol < 8:
		return symbol, 0
	}
	n = uint(symbol)/4 - 1
	return (4 + symbol&3) << n, n
}

// distanceSymbol splits a distance, less 1, into a symbol and extra bits.
func distanceSymbol(d int) (symbol int, extra uint, n uint) {
	if d < 4 {
		return d, 0, 0
	}
	n = uint(bits.Len(uint(d))) - 2
	return int(2*n+2) + d>>n&1, uint(d) & (1<<n - 1), n
}

func distanceBase(symbol int) (base int, n uint) {
	if symbol < 4 {
		return symbol, 0
	}
	n = uint(symbol)/2 - 1
	return (2 + symbol&1) << n, n
}
