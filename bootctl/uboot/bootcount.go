// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/updaterd/updaterd/bootctl"
)

// The variables of scheme bootcount (docs/boot-contract.md#variables).
const (
	VarSlot     = "boot_slot"         // the slot that is started next
	VarBad      = "boot_bad"          // slots that are never started, separated by blanks
	VarTrial    = "upgrade_available" // 1: starts are counted; in scheme bootorder: the first slot is on trial
	VarCount    = "bootcount"         // starts counted in this trial
	VarLimit    = "bootlimit"         // starts allowed in a trial
	VarFallback = "altbootcmd"        // what U-Boot runs when they are used up
)

// DefaultLimit is the bootlimit that beginning a trial sets if there is none:
// without a limit U-Boot would never fall back.
const DefaultLimit = 3

// bootcount is the scheme of docs/boot-contract.md that U-Boot's own boot
// counter serves.
type bootcount struct{}

func (bootcount) status(env *Env) (bootctl.Status, error) {
	slot := bootctl.Slot(env.Get(VarSlot))
	switch {
	case slot == "":
		return bootctl.Status{}, fmt.Errorf("%w: %s is not set: set it to the slot that runs now, with \"updater-bootctl set-primary\"", bootctl.ErrContract, VarSlot)
	case !slot.Valid():
		return bootctl.Status{}, fmt.Errorf("%w: %s is %.40q, but only a and b are slots: set it with \"updater-bootctl set-primary\"", bootctl.ErrContract, VarSlot, slot)
	}
	st := bootctl.Status{Primary: slot, EnvID: env.Get(VarEnvID), Bad: badSlots(env)}
	// U-Boot never starts a bad slot: it takes the other one.
	if st.IsBad(slot) && !st.IsBad(slot.Other()) {
		st.Primary = slot.Other()
	}
	limit := number(env.Get(VarLimit))
	if st.Trial = number(env.Get(VarTrial)) != 0; st.Trial {
		// U-Boot adds 1 at a start, then falls back if the count is above the limit.
		st.TriesLeft = max(0, limit-number(env.Get(VarCount)))
	}
	st.Problems = bootcountProblems(env)
	return st, nil
}

func bootcountProblems(env *Env) []string {
	var list []string
	if env.Get(VarFallback) == "" {
		list = append(list, VarFallback+" is not set: when a trial's tries are used up, U-Boot would stop at its prompt instead of falling back")
	}
	if number(env.Get(VarTrial)) != 0 && number(env.Get(VarLimit)) == 0 {
		list = append(list, VarLimit+" is not set, so the trial in progress would never fall back")
	}
	for _, name := range strings.Fields(env.Get(VarBad)) {
		if !bootctl.Slot(name).Valid() {
			list = append(list, fmt.Sprintf("%s lists %.40q, which is not a slot", VarBad, name))
		}
	}
	if bad := badSlots(env); len(bad) == 2 {
		list = append(list, "both slots are marked bad: U-Boot would start nothing")
	}
	return list
}

// badSlots is the list of bad slots, sorted.
func badSlots(env *Env) []bootctl.Slot {
	var bad []bootctl.Slot
	for _, name := range strings.Fields(env.Get(VarBad)) {
		if slot := bootctl.Slot(name); slot.Valid() && !slices.Contains(bad, slot) {
			bad = append(bad, slot)
		}
	}
	slices.Sort(bad)
	return bad
}

func (bootcount) apply(env *Env, change bootctl.Change) error {
	bad := strings.Fields(env.Get(VarBad))
	before := slices.Clone(bad)
	for _, slot := range change.Bad {
		if !slices.Contains(bad, string(slot)) {
			bad = append(bad, string(slot))
		}
	}
	for _, slot := range change.NotBad {
		bad = slices.DeleteFunc(bad, func(name string) bool { return name == string(slot) })
	}
	if change.Primary != "" && slices.Contains(bad, string(change.Primary)) {
		return fmt.Errorf("start slot %s: %w", change.Primary, bootctl.ErrBadSlot)
	}
	var list []setting
	if !slices.Equal(bad, before) {
		list = append(list, setting{VarBad, strings.Join(bad, " ")})
	}
	if change.Primary != "" {
		list = append(list, setting{VarSlot, string(change.Primary)})
	}
	if change.EnvID != "" {
		list = append(list, setting{VarEnvID, change.EnvID})
	}
	trial, err := trialSettings(env, change.Trial)
	if err != nil {
		return err
	}
	for _, s := range append(list, trial...) {
		if err := env.Set(s.name, s.value); err != nil {
			return err
		}
	}
	if len(change.Bad) > 0 && len(badSlots(env)) == 2 {
		return fmt.Errorf("mark slot bad: no slot would be left to start: %w", bootctl.ErrBadSlot)
	}
	return nil
}

type setting struct{ name, value string }

func trialSettings(env *Env, change bootctl.Trial) ([]setting, error) {
	switch change {
	case bootctl.TrialBegin:
		if env.Get(VarFallback) == "" {
			return nil, fmt.Errorf("begin trial: %w: %s is not set, so a failed trial would end at U-Boot's prompt: store U-Boot's default environment or set the variable", bootctl.ErrContract, VarFallback)
		}
		list := []setting{{VarTrial, "1"}, {VarCount, "0"}}
		if number(env.Get(VarLimit)) == 0 {
			list = append(list, setting{VarLimit, strconv.Itoa(DefaultLimit)})
		}
		return list, nil
	case bootctl.TrialEnd:
		// Outside a trial U-Boot does not count, so there is nothing to end, and
		// confirming again and again costs no flash.
		if number(env.Get(VarTrial)) != 0 {
			return []setting{{VarTrial, "0"}, {VarCount, "0"}}, nil
		}
	}
	return nil, nil
}
