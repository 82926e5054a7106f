// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/updaterd/updaterd/bootctl"
)

// VarEnvID is the canary, in every scheme.
const VarEnvID = "env_id"

// Names of the schemes.
const (
	Bootcount = "bootcount"
	Bootorder = "bootorder"
)

// A Scheme says in which variables U-Boot and Linux agree on what is started.
type Scheme struct {
	// Name is Bootcount, Bootorder, or "": the one that the environment follows.
	Name string
	// Slots are the names of the slots a and b in scheme bootorder, "A" and "B"
	// unless given.
	Slots [2]string
	// Started is the slot that the bootloader says it started (see Booted), or ""
	// if that is not known. Scheme bootorder tells by it the last start of a slot
	// from one that was given up: the variables alone are the same.
	Started bootctl.Slot
	// BootID is the kernel's id of this start. In scheme bootorder it is put on
	// record with the proof that the bootloader uses this environment.
	BootID string
}

// scheme is what the schemes have in common: both work in memory.
type scheme interface {
	status(env *Env) (bootctl.Status, error)
	apply(env *Env, change bootctl.Change) error
}

// of is the scheme to use with env. To use the wrong one would store variables
// that nobody reads.
func (s Scheme) of(env *Env) (scheme, error) {
	count, order := env.Get(VarSlot) != "", env.Get(VarOrder) != ""
	name := s.Name
	switch {
	case name == "" && count && order:
		return nil, fmt.Errorf("%w: both %s and %s are set: say which scheme U-Boot's boot commands follow, %s or %s", bootctl.ErrContract, VarSlot, VarOrder, Bootcount, Bootorder)
	case name == "" && order:
		name = Bootorder
	case name == "":
		name = Bootcount
	case name == Bootcount && order && !count, name == Bootorder && count && !order:
		has, is := VarSlot, Bootcount
		if order {
			has, is = VarOrder, Bootorder
		}
		return nil, fmt.Errorf("%w: scheme %s is configured, but %s is set, as in scheme %s: configure that one if U-Boot's boot commands read it", bootctl.ErrContract, name, has, is)
	}
	if name == Bootorder {
		return s.bootorder(), nil
	}
	return bootcount{}, nil
}

func (s Scheme) check() error {
	if !slices.Contains([]string{"", Bootcount, Bootorder}, s.Name) {
		return fmt.Errorf("scheme %.40q is neither %s nor %s", s.Name, Bootcount, Bootorder)
	}
	return s.bootorder().check()
}

// The flags of the kernel's command line that tell which slot was started.
const (
	flagSlot = "updaterd.slot" // a or b
	flagRAUC = "rauc.slot"     // the slot's name in scheme bootorder
)

// Booted is the slot that the bootloader says it started. flag looks up a flag
// of the kernel's command line. The command line is a claim; what is mounted on
// / is the proof.
func (s Scheme) Booted(flag func(name string) (value string, found bool)) (bootctl.Slot, error) {
	if value, found := flag(flagSlot); found {
		if slot := bootctl.Slot(value); slot.Valid() {
			return slot, nil
		}
		return "", fmt.Errorf("the kernel command line says %s=%q, which is neither a nor b", flagSlot, value)
	}
	if s.Name == Bootcount {
		return "", fmt.Errorf("the kernel command line has no %s=: let the boot command add it", flagSlot)
	}
	value, found := flag(flagRAUC)
	if !found {
		return "", fmt.Errorf("the kernel command line has neither %s= nor %s=: let the boot command add one of them", flagSlot, flagRAUC)
	}
	names := s.bootorder().names
	for i, slot := range slots {
		if value == names[i] {
			return slot, nil
		}
	}
	return "", fmt.Errorf("the kernel command line says %s=%q, which is neither %q nor %q: configure the names that the boot commands use", flagRAUC, value, names[0], names[1])
}

var slots = [2]bootctl.Slot{bootctl.SlotA, bootctl.SlotB}

// Status implements [bootctl.Control].
func (c *Control) Status() (bootctl.Status, error) {
	s, err := c.readShared()
	if err != nil {
		return bootctl.Status{}, err
	}
	_, copies := c.store.Geometry()
	scheme, err := c.scheme.of(s.env)
	if err != nil {
		return bootctl.Status{}, fmt.Errorf("read boot environment: %w", err)
	}
	st, err := scheme.status(s.env)
	if err != nil {
		return bootctl.Status{}, fmt.Errorf("read boot environment: %w", err)
	}
	st.Copies, st.Redundant = s.intact, copies == 2
	st.Warnings = c.store.Traits().Warnings
	return st, nil
}

// number reads a variable as U-Boot does: the decimal digits it begins with, or 0.
func number(value string) int {
	n := 0
	for _, c := range value {
		if c < '0' || c > '9' {
			break
		}
		if n = n*10 + int(c-'0'); n > 1<<30 {
			return 1 << 30
		}
	}
	return n
}

// Apply implements [bootctl.Control].
func (c *Control) Apply(change bootctl.Change) error {
	if err := checkChange(change); err != nil {
		return fmt.Errorf("change boot environment: %w", err)
	}
	return c.Update(change.BothCopies, func(env *Env) error {
		scheme, err := c.scheme.of(env)
		if err == nil {
			err = scheme.apply(env, change)
		}
		if err != nil {
			return fmt.Errorf("change boot environment: %w", err)
		}
		return nil
	})
}

func checkChange(change bootctl.Change) error {
	slots := slices.Concat(change.Bad, change.NotBad)
	if change.Primary != "" {
		slots = append(slots, change.Primary)
	}
	for _, slot := range slots {
		if !slot.Valid() {
			return fmt.Errorf("%.40q is not a slot: use a or b", slot)
		}
	}
	if change.Trial < bootctl.TrialKeep || change.Trial > bootctl.TrialEnd {
		return fmt.Errorf("internal error: unknown trial change %d", change.Trial)
	}
	// The id is put on the kernel's command line.
	if len(change.EnvID) > 64 || strings.ContainsFunc(change.EnvID, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '-' || r == '_' || r == '.')
	}) {
		return errors.New("an environment id has at most 64 letters, digits, dots, hyphens and underscores")
	}
	return nil
}
