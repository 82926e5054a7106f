// SPDX-License-Identifier: Apache-2.0

package bootctl

import (
	"errors"
	"slices"
)

// A Slot is the name under which the bootloader knows one of the two sets of
// partitions: "a" or "b". The slot of class rootfs in set "a" is "rootfs.a".
type Slot string

// The two slots of an A/B device.
const (
	SlotA Slot = "a"
	SlotB Slot = "b"
)

// Valid reports whether s is one of the two slots.
func (s Slot) Valid() bool { return s == SlotA || s == SlotB }

// Other is the slot that s is not; it is "" unless s is valid.
func (s Slot) Other() Slot {
	switch s {
	case SlotA:
		return SlotB
	case SlotB:
		return SlotA
	}
	return ""
}

// Status is what the bootloader would do if the device started now.
type Status struct {
	// Primary is the slot that is started next. (If its tries are used up, the
	// next start is a fall-back instead, and then it is the other one.)
	Primary Slot
	// Trial tells that the next starts are counted, and that the bootloader
	// falls back to the other slot when the count is used up.
	Trial bool
	// TriesLeft is how many more times the bootloader will start the slot on
	// trial before it falls back; it is 0 outside a trial.
	TriesLeft int
	// Bad lists the slots that the bootloader never starts, sorted.
	Bad []Slot
	// EnvID is the canary: the id that Linux wrote and that the bootloader
	// must hand back on the kernel command line. It is "" if none was written.
	EnvID string
	// Proven tells that the variables themselves show that the bootloader uses
	// this environment. Only one that counts every start can show it; with others
	// the canary must come back.
	Proven bool
	// Copies counts the intact copies of the environment (1 or 2; on a device
	// without redundancy it is always 1), and Redundant tells what there should be.
	Copies    int
	Redundant bool
	// Problems lists, in sentences, what in the environment keeps a trial from
	// being safe (no way back, no limit). It is empty on a device that is set up well.
	Problems []string
	// Warnings lists, in sentences, what is unwise but keeps nothing from working:
	// how the copies of the environment are placed.
	Warnings []string
}

// IsBad reports whether slot is on the list of slots that are never started.
func (s Status) IsBad(slot Slot) bool { return slices.Contains(s.Bad, slot) }

// A Trial says what a change does to the trial.
type Trial int

// What a change may do to the trial. TrialBegin and TrialEnd set the boot
// counter to zero in the same write. TrialEnd outside a trial changes nothing,
// because a boot counter means nothing there, unless the bootloader counts every
// start: then it says that the confirmed slot has started once more.
const (
	TrialKeep Trial = iota
	TrialBegin
	TrialEnd
)

// A Change is applied in one atomic write. Its zero value changes nothing.
type Change struct {
	// Primary, unless "", becomes the slot that is started next.
	Primary Slot
	// Trial begins or ends the trial.
	Trial Trial
	// Bad is added to the list of bad slots, then NotBad is taken off it.
	Bad, NotBad []Slot
	// EnvID, unless "", is the new canary.
	EnvID string
	// BothCopies asks for a second write that brings the other copy to the same
	// content, after the first is safe, so that losing either copy changes nothing.
	BothCopies bool
}

// Control reads and changes what the bootloader does.
type Control interface {
	// Status reads the environment anew. It fails with ErrDamaged if no copy is intact.
	Status() (Status, error)
	// Apply makes one change. It returns after the write is on the medium and
	// was read back, and it writes nothing if the change changes nothing (and,
	// with BothCopies, both copies are already alike).
	Apply(Change) error
}

// Errors that a caller can tell apart.
var (
	// ErrDamaged: no copy of the environment is intact. Nothing was written:
	// defaults are never invented.
	ErrDamaged = errors.New("no intact copy of the boot environment")
	// ErrBadSlot: the change would start a slot that is marked bad.
	ErrBadSlot = errors.New("slot is marked bad")
	// ErrContract: the environment is intact, but what it says, or lacks, is not
	// what docs/boot-contract.md asks for.
	ErrContract = errors.New("boot environment does not follow the boot contract")
)
