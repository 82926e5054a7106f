// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/updaterd/updaterd/bootctl"
)

// VarOrder lists the slots in the order in which they are started, in scheme
// bootorder (docs/boot-contract.md#scheme-bootorder). Beside it there is
// BOOT_<name>_LEFT for each.
const VarOrder = "BOOT_ORDER"

// Tries is how many starts a slot gets in scheme bootorder. It is one digit,
// because one bootloader reads it as hexadecimal and another one as decimal.
const Tries = 3

// bootorder is the scheme of RAUC's boot scripts: U-Boot starts the first slot
// of BOOT_ORDER that has starts left, and takes one off at every start, also
// outside a trial.
type bootorder struct {
	names   [2]string // of slots a and b
	started bootctl.Slot
	bootID  string
}

func (s Scheme) bootorder() bootorder {
	b := bootorder{names: s.Slots, started: s.Started, bootID: s.BootID}
	if b.names == [2]string{} {
		b.names = [2]string{"A", "B"}
	}
	return b
}

func (b bootorder) check() error {
	for _, name := range b.names {
		if err := checkName(name); err != nil {
			return fmt.Errorf("name %.40q of a slot: %w", name, err)
		}
	}
	if b.names[0] == b.names[1] {
		return fmt.Errorf("both slots have the name %.40q", b.names[0])
	}
	return nil
}

// name is what the bootloader calls slot.
func (b bootorder) name(slot bootctl.Slot) string { return b.names[slices.Index(slots[:], slot)] }

// slot is the slot of that name, or "" if it is somebody else's, such as a
// rescue system's.
func (b bootorder) slot(name string) bootctl.Slot {
	for i, own := range b.names {
		if name == own {
			return slots[i]
		}
	}
	return ""
}

// ledger is what the variables say: the order of all names, and the starts left
// of our slots.
type ledger struct {
	order []string
	left  map[bootctl.Slot]int
}

// read takes what is not set for what a boot script makes of it.
func (b bootorder) read(env *Env) ledger {
	l := ledger{order: strings.Fields(env.Get(VarOrder)), left: map[bootctl.Slot]int{}}
	if len(l.order) == 0 {
		l.order = slices.Clone(b.names[:])
	}
	for _, slot := range slots {
		l.left[slot] = Tries
		if value := env.Get(b.left(slot)); value != "" {
			l.left[slot] = hexNumber(value)
		}
	}
	return l
}

// left is the variable with the starts that slot has left.
func (b bootorder) left(slot bootctl.Slot) string { return "BOOT_" + b.name(slot) + "_LEFT" }

// hexNumber reads the hexadecimal digits at the beginning, as a boot script does.
func hexNumber(value string) int {
	n := 0
	for _, c := range strings.ToLower(value) {
		digit := strings.IndexRune("0123456789abcdef", c)
		if digit < 0 || n > 1<<20 {
			break
		}
		n = n<<4 | digit
	}
	return n
}

func (b bootorder) listed(l ledger, slot bootctl.Slot) bool {
	return slices.Contains(l.order, b.name(slot))
}

// startable reports that slot is not given up: it has starts left, or runs in
// its last one.
func (b bootorder) startable(l ledger, slot bootctl.Slot) bool {
	return b.listed(l, slot) && (l.left[slot] > 0 || slot == b.started)
}

// first is the first of our slots in the order, or "".
func (b bootorder) first(l ledger) bootctl.Slot {
	for _, name := range l.order {
		if slot := b.slot(name); slot != "" {
			return slot
		}
	}
	return ""
}

// next is the first one that is not given up, or "".
func (b bootorder) next(l ledger) bootctl.Slot {
	for _, name := range l.order {
		if slot := b.slot(name); slot != "" && b.startable(l, slot) {
			return slot
		}
	}
	return ""
}

// fellBack reports that the bootloader has given up the slot on trial. It leaves
// the mark of the trial, which it does not know.
func (b bootorder) fellBack(env *Env, l ledger) bool {
	tried := b.first(l)
	return number(env.Get(VarTrial)) != 0 && tried != "" && !b.startable(l, tried)
}

// counted reports that the bootloader has counted this start: since the slot's
// starts were filled up, it has taken one off.
func (b bootorder) counted(l ledger) bool {
	return b.started != "" && b.listed(l, b.started) && l.left[b.started] < Tries
}

// proof is what env_id becomes when counted has shown that the bootloader uses
// this environment, and the write that records it fills the starts up again.
func (b bootorder) proof() string { return "counted-" + b.bootID }

func (b bootorder) status(env *Env) (bootctl.Status, error) {
	l := b.read(env)
	ours := b.first(l)
	switch {
	case env.Get(VarOrder) == "":
		return bootctl.Status{}, fmt.Errorf("%w: %s is not set: let the boot script store it, or set it with \"updater-bootctl set-primary\"", bootctl.ErrContract, VarOrder)
	case ours == "" && env.Get(b.left(bootctl.SlotA)) == "" && env.Get(b.left(bootctl.SlotB)) == "":
		return bootctl.Status{}, fmt.Errorf("%w: %s is %.80q, which names neither %s nor %s: say what the slots are called", bootctl.ErrContract, VarOrder, env.Get(VarOrder), b.names[0], b.names[1])
	}
	st := bootctl.Status{EnvID: env.Get(VarEnvID)}
	for _, slot := range slots {
		if !b.startable(l, slot) {
			st.Bad = append(st.Bad, slot)
		}
	}
	st.Primary = cmp.Or(b.next(l), ours, bootctl.SlotA)
	if st.Trial = number(env.Get(VarTrial)) != 0 && st.Primary == ours; st.Trial {
		st.TriesLeft = l.left[ours]
	}
	st.Proven = st.EnvID != "" && (b.counted(l) || st.EnvID == b.proof() && b.bootID != "")
	st.Problems = b.problems(env, l, st)
	return st, nil
}

func (b bootorder) problems(env *Env, l ledger, st bootctl.Status) []string {
	var list []string
	if len(st.Bad) == 2 {
		list = append(list, "both slots are given up: U-Boot would start neither")
	}
	if foreign := l.order[0]; b.slot(foreign) == "" {
		list = append(list, fmt.Sprintf("%s begins with %.40q, which is not a slot: it would be started instead of one", VarOrder, foreign))
	}
	if number(env.Get(VarLimit)) != 0 && env.Get(VarFallback) == "" {
		list = append(list, fmt.Sprintf("%s is set and %s is not: a U-Boot with a boot counter of its own would stop at its prompt in a trial: remove %s", VarLimit, VarFallback, VarLimit))
	}
	return list
}

func (b bootorder) apply(env *Env, change bootctl.Change) error {
	l := b.read(env)
	before := b.read(env)
	tried, over := b.first(l), b.fellBack(env, l)
	if over && b.started == "" && change.Trial == bootctl.TrialEnd && change.Primary == "" {
		return fmt.Errorf("end trial: %w: the kernel's command line does not say which slot runs, so slot %s may be in its last start, or given up: "+
			"if it runs, \"updater-bootctl mark-good %s\" and \"updater-bootctl set-primary %s\" keep it; if not, \"updater-bootctl mark-bad %s\"", bootctl.ErrContract, tried, tried, tried, tried)
	}
	// A slot that is bad has no starts left and is not in the order: when no slot
	// has any left, boot scripts fill up all, but they leave the order as it is;
	// and U-Boot's own boot method wants to find every slot in it bootable.
	giveUp := func(slot bootctl.Slot) {
		l.order = slices.DeleteFunc(l.order, func(name string) bool { return name == b.name(slot) })
		l.left[slot] = 0
	}
	for _, slot := range change.Bad {
		giveUp(slot)
	}
	for _, slot := range change.NotBad {
		if over && slot == tried && change.Primary == "" && change.Trial == bootctl.TrialKeep && b.next(l) != "" {
			giveUp(slot) // it may be started again, but not before the slot that it fell back to
		}
		if !b.listed(l, slot) {
			l.order = append(l.order, b.name(slot))
		}
		if l.left[slot] == 0 {
			l.left[slot] = Tries
		}
	}
	if slot := change.Primary; slot != "" {
		if !b.startable(l, slot) {
			return fmt.Errorf("start slot %s: %w", slot, bootctl.ErrBadSlot)
		}
		l.order = slices.DeleteFunc(l.order, func(name string) bool { return name == b.name(slot) })
		l.order = slices.Insert(l.order, 0, b.name(slot))
		l.left[slot] = Tries
	}
	if change.Trial == bootctl.TrialEnd && over && !slices.Contains(change.NotBad, tried) && b.next(l) != "" {
		giveUp(tried)
	}
	if len(change.Bad) > 0 && b.next(l) == "" {
		return fmt.Errorf("mark slot bad: no slot would be left to start: %w", bootctl.ErrBadSlot)
	}
	// A new canary starts the count anew: only what is counted after it proves anything.
	if change.Trial != bootctl.TrialKeep || change.EnvID != "" {
		for _, slot := range slots {
			if b.startable(l, slot) {
				l.left[slot] = Tries
			}
		}
	}
	trial := change.Trial
	if trial == bootctl.TrialKeep && change.Primary == "" && b.first(l) != tried {
		trial = bootctl.TrialEnd // it was the trial of a slot that is first no more, and not that of the next one
	}
	list := b.trialSettings(env, trial)
	if !slices.Equal(l.order, before.order) || env.Get(VarOrder) == "" && change.Primary != "" {
		list = append(list, setting{VarOrder, strings.Join(l.order, " ")})
	}
	for _, slot := range slots {
		if l.left[slot] != before.left[slot] {
			list = append(list, setting{b.left(slot), strconv.Itoa(l.left[slot])})
		}
	}
	switch id := env.Get(VarEnvID); {
	case change.EnvID != "":
		list = append(list, setting{VarEnvID, change.EnvID})
	case b.counted(before) && !b.counted(l) && id != "" && b.bootID != "":
		// This write wipes the proof out, so it puts it on record.
		list = append(list, setting{VarEnvID, b.proof()})
	}
	for _, s := range list {
		if err := env.Set(s.name, s.value); err != nil {
			return err
		}
	}
	return nil
}

func (b bootorder) trialSettings(env *Env, change bootctl.Trial) []setting {
	switch {
	case change == bootctl.TrialBegin:
		return []setting{{VarTrial, "1"}}
	case change == bootctl.TrialEnd && number(env.Get(VarTrial)) != 0:
		return []setting{{VarTrial, "0"}}
	}
	return nil
}
