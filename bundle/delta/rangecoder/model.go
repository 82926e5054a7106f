// SPDX-License-Identifier: Apache-2.0

package rangecoder

const (
	// MaxInputs is how many contexts and predictions a Model can weigh.
	MaxInputs = 8

	maxPredictions = 3
	trustLevels    = 64

	groupSlots   = 16               // a tag, and the nodes of four bits
	predictSlots = trustLevels * 16 // of one prediction
	firstWeight  = 65536 * 22 / 100
)

// Contexts are what a decision may depend on: a number for each thing that
// was seen before, or for several together.
type Contexts [MaxInputs]uint64

// A Prediction is a byte that is expected.
type Prediction struct {
	Byte byte
	// Trust is 1 to 63 and tells predictions apart that may be right unequally often. 0 is none.
	Trust uint8
}

// A Model learns how likely bits are, from several contexts at once. For each
// context it knows how often a bit was 1 there. The logistic values of these
// probabilities are weighed and added, and the weights are learnt as well. A
// decision names the set of weights that it uses.
type Model struct {
	contexts int
	inputs   int
	weights  []int32 // in 65536ths, one for each input of each set
	speed    int32   // of learning the weights
	slots    []slot
	shift    uint // hash >> shift is a slot
	dirty    bool
}

// A slot is a probability in 4096ths above the times it was used, as far as
// 15; the highest bit is inverted, so that 0 is a half that was never used.
// In a group of slots the first is a tag.
type slot uint16

const unused = 1 << 15

// NewModel makes a model that weighs so many contexts and predictions, with
// 1<<width slots of 2 bytes for what is seen in contexts.
func NewModel(contexts, predictions, width, sets, speed int) *Model {
	m := &Model{
		contexts: contexts,
		inputs:   contexts + predictions,
		weights:  make([]int32, (contexts+predictions)*sets),
		speed:    int32(speed),
		slots:    make([]slot, 1<<width+predictions*predictSlots),
		shift:    uint(64 - width),
		dirty:    true,
	}
	m.Reset()
	return m
}

// Reset forgets what was learnt.
func (m *Model) Reset() {
	if !m.dirty {
		return
	}
	m.dirty = false
	clear(m.slots)
	for i := range m.weights {
		m.weights[i] = firstWeight
	}
}

// hash mixes a context with its number and the bits of the same byte before.
func hash(context uint64, i int, before uint32) uint64 {
	h := context*0x9e3779b97f4a7c15 + (uint64(before)<<3|uint64(i))*0xd6e8feb86659fd93
	return (h ^ h>>32) * 0xff51afd7ed558ccd
}

// Bit codes a bit. Without a coder, it only learns it.
func (m *Model) Bit(c *Coder, bit uint32, contexts *Contexts, set int) uint32 {
	var at [MaxInputs]uint32
	for i := range m.contexts {
		at[i&7] = uint32(hash(contexts[i&7], i, 0) >> m.shift)
	}
	return m.code(c, bit, &at, set)
}

// Byte codes a byte, its highest bit first, with eight sets of weights from 8*set on.
// Without a coder, it only learns it.
func (m *Model) Byte(c *Coder, b byte, contexts *Contexts, predictions []Prediction, set int) byte {
	var group, at [MaxInputs]uint32
	v := uint32(1) // the bits so far, below a 1
	for n := range 8 {
		if n&3 == 0 {
			for i := range m.contexts {
				group[i&7] = m.group(hash(contexts[i&7], i, v))
			}
		}
		node := uint32(1)<<(n&3) | v&(1<<(n&3)-1)
		for i := range m.contexts {
			at[i&7] = group[i&7] + node
		}
		for i, p := range predictions {
			s := uint32(len(m.slots) - (i+1)*predictSlots)
			if e := uint32(p.Byte) | 1<<8; p.Trust != 0 && e>>(8-n) == v {
				s += uint32(p.Trust)<<4 | e>>(7-n)&1<<3 | uint32(n)
			}
			at[(m.contexts+i)&7] = s
		}
		v = v<<1 | m.code(c, uint32(b>>7), &at, 8*set+n)
		b <<= 1
	}
	return byte(v)
}

// group finds the slots for four bits in a context. If there are none yet,
// they take the place of the less used of two groups.
func (m *Model) group(h uint64) uint32 {
	tag := slot(h>>16 | 1)
	g := uint32(h>>m.shift) &^ (groupSlots - 1)
	if m.slots[g] == tag {
		return g
	}
	other := g ^ groupSlots
	if m.slots[other] == tag {
		return other
	}
	if m.slots[other+1]&15 < m.slots[g+1]&15 {
		g = other
	}
	s := m.slots[g : g+groupSlots]
	clear(s)
	s[0] = tag
	return g
}

// code codes a bit by the slots of all inputs, and lets them and the weights learn it.
func (m *Model) code(c *Coder, bit uint32, at *[MaxInputs]uint32, set int) uint32 {
	m.dirty = true
	weights := m.weights[set*m.inputs : (set+1)*m.inputs]
	var in [MaxInputs]int32
	sum := int64(0)
	for i, w := range weights {
		x := int32(logistic.stretch[(m.slots[at[i&7]]^unused)>>4])
		in[i&7] = x
		sum += int64(x) * int64(w)
	}
	p := uint32(logistic.squash[min(max(sum>>16, -reach), reach)+reach])
	if c != nil {
		bit = c.Bit(bit, p)
	}
	miss := (int32(bit<<16) - int32(p)) * m.speed >> 4
	for i := range weights {
		weights[i] += (in[i&7]*miss + 1<<15) >> 16
		s := &m.slots[at[i&7]]
		v := uint32(*s ^ unused)
		n := v & 15
		if bit != 0 {
			v += (1<<16 - 1 - v) * logistic.rate[n] >> 16 &^ 15
		} else {
			v -= v * logistic.rate[n] >> 16 &^ 15
		}
		if n < 15 {
			v++
		}
		*s = slot(v) ^ unused
	}
	return bit
}
