// SPDX-License-Identifier: Apache-2.0

package bootctl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// A Switch chooses the slot of one class that something before the bootloader's
// environment starts, such as the processor's ROM.
type Switch interface {
	// Selected tells which slot is started next.
	Selected() (Slot, error)
	// Select makes it slot, in one write that a power cut does or does not leave.
	// It returns once that is on the medium and was read back. If it is that already,
	// only what a cut has left is mended, such as the second of two tables.
	Select(slot Slot) error
}

// Blank reports whether the first n bytes of r are all zeros, or all ones: what a
// medium has where nothing was ever written. A switch does not select that.
func Blank(r io.ReaderAt, n int64) (bool, error) {
	buf := make([]byte, 64<<10)
	first := byte(0)
	for off := int64(0); off < n; {
		b := buf[:min(int64(len(buf)), n-off)]
		if _, err := r.ReadAt(b, off); err != nil {
			return false, err
		}
		if off == 0 {
			first = b[0]
		}
		if first != 0 && first != 0xff || bytes.Count(b, []byte{first}) != len(b) {
			return false, nil
		}
		off += int64(len(b))
	}
	return true, nil
}

// WithSwitches is a [Control] that moves switches, by class, with the primary
// slot. A change that names a primary slot moves every switch there first, and
// then makes its one write to the environment, which stays the commit point.
//
// A cut between the two leaves the switch of one class at the other slot. Both
// slots of that class can be started then: a change makes the target primary
// after it was written and read back, and makes the source primary, with every
// switch moved there, before the target is written. If the bootloader itself
// falls back, the switches stay where they are. In both cases the environment
// is right, and [Switched.Settle] makes the switches follow.
func WithSwitches(control Control, switches map[string]Switch) *Switched {
	return &Switched{Control: control, switches: switches}
}

// Switched is what [WithSwitches] makes.
type Switched struct {
	Control
	switches map[string]Switch
}

// Status adds a problem for each switch that disagrees with the environment.
func (s *Switched) Status() (Status, error) {
	status, err := s.Control.Status()
	if err != nil {
		return status, err
	}
	for _, class := range slices.Sorted(maps.Keys(s.switches)) {
		slot, err := s.switches[class].Selected()
		switch {
		case err != nil:
			status.Problems = append(status.Problems, fmt.Sprintf("which slot of class %s is selected cannot be told: %v", class, err))
		case slot != status.Primary:
			status.Problems = append(status.Problems, fmt.Sprintf("slot %s.%s is selected although slot %s is primary: restart updaterd, which selects %s.%s",
				class, slot, status.Primary, class, status.Primary))
		}
	}
	return status, nil
}

// Apply implements [Control].
func (s *Switched) Apply(change Change) error {
	if change.Primary != "" && len(s.switches) > 0 {
		if err := s.allow(change); err != nil {
			return err
		}
		if err := s.moveTo(change.Primary); err != nil {
			return err
		}
	}
	return s.Control.Apply(change)
}

// allow refuses what the environment would refuse, before a switch is moved.
func (s *Switched) allow(change Change) error {
	if !change.Primary.Valid() {
		return fmt.Errorf("change boot environment: %.40q is not a slot: use a or b", change.Primary)
	}
	status, err := s.Control.Status()
	if err != nil {
		return err
	}
	bad := slices.Contains(change.Bad, change.Primary) || status.IsBad(change.Primary)
	if bad && !slices.Contains(change.NotBad, change.Primary) {
		return fmt.Errorf("change boot environment: start slot %s: %w", change.Primary, ErrBadSlot)
	}
	return nil
}

func (s *Switched) moveTo(slot Slot) error {
	for _, class := range slices.Sorted(maps.Keys(s.switches)) {
		// Commit point for this class alone. After a cut here the other slot of the
		// class starts the system that the environment says, as it did before. Also
		// one that is there already is asked: a cut may have left it a second place
		// that says otherwise.
		if err := s.switches[class].Select(slot); err != nil {
			return fmt.Errorf("select slot %s.%s: %w", class, slot, err)
		}
	}
	return nil
}

// Settle moves the switches to the primary slot. During a trial it does
// nothing: whoever began the trial moved them, and its end moves them again.
func (s *Switched) Settle() error {
	status, err := s.Control.Status()
	switch {
	case err != nil:
		return err
	case status.Trial, !status.Primary.Valid():
		return nil
	case status.IsBad(status.Primary):
		return errors.New("both slots are marked bad, so the switches stay where they are")
	}
	return s.moveTo(status.Primary)
}
