// SPDX-License-Identifier: Apache-2.0

package ubootmodel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
)

// ErrNoBoot: no slot can be started. The device would reset and try again.
var ErrNoBoot = errors.New("no slot can be started")

// Board is a device as U-Boot sees it.
type Board struct {
	Store uboot.Store
	// Default is the environment that is compiled into U-Boot.
	Default map[string]string
}

// Start is what U-Boot hands to the kernel, and what it did before.
type Start struct {
	Slot bootctl.Slot
	// EnvID is updaterd.env_id on the kernel's command line.
	EnvID string
	// Defaults tells that no copy was intact, so that Default was used.
	Defaults bool
	// FellBack tells that the boot limit was exceeded in this start and that
	// altbootcmd gave up the slot on trial.
	FellBack bool
}

// Factory is a default environment of scheme bootcount in which slot is primary
// and nothing is bad.
func Factory(slot bootctl.Slot) map[string]string {
	return map[string]string{
		"boot_slot": string(slot), "upgrade_available": "0", "bootcount": "0", "bootlimit": "3",
		"bootcmd": "run boot_chosen", "altbootcmd": "run fall_back; run bootcmd",
	}
}

// Format stores Default in every copy, as a factory does.
func (b *Board) Format() error {
	size, copies := b.Store.Geometry()
	for i := range copies {
		// In both conventions 1 is the newer one and 0 the older.
		image, err := export(b.Default, byte(1-i), size, copies == 2)
		if err != nil {
			return err
		}
		if err := b.Store.WriteCopy(i, image); err != nil {
			return err
		}
	}
	return nil
}

// Boot is one start, from power-on until the kernel of a slot runs. starts says
// whether a slot holds a kernel that can be loaded and started. An error of the
// store (a power cut while U-Boot saved) ends the start.
func (b *Board) Boot(starts func(bootctl.Slot) bool) (Start, error) {
	for range maxResets {
		start, err := b.boot(starts)
		if !errors.Is(err, errReset) {
			return start, err
		}
	}
	return Start{}, ErrNoBoot
}

// boot is one start up to the kernel, or to a reset by the boot commands.
func (b *Board) boot(starts func(bootctl.Slot) bool) (Start, error) {
	m, err := b.load()
	if err != nil {
		return Start{}, err
	}
	start := Start{Defaults: m.current < 0}
	// bootcount_inc: outside a trial the counter reads 0, and becomes 1 in memory only.
	count := 0
	trial := decimal(m.vars["upgrade_available"]) != 0
	if trial {
		count = decimal(m.vars["bootcount"])
	}
	count++
	m.vars["bootcount"] = strconv.Itoa(count)
	if trial {
		if err := m.save(); err != nil {
			return start, err
		}
	}
	if limit := decimal(m.vars["bootlimit"]); limit != 0 && count > limit {
		if m.vars["altbootcmd"] == "" {
			return start, fmt.Errorf("boot limit exceeded and no altbootcmd: U-Boot stops at its prompt: %w", ErrNoBoot)
		}
		if start.FellBack, err = m.fallBack(); err != nil {
			return start, err
		}
	}
	if m.vars["bootcmd"] == orderCommand {
		return m.bootOrder(start, starts)
	}
	// bootcmd: the chosen slot, then the other one, and never a bad one.
	first := chosen(m.vars)
	for _, slot := range []bootctl.Slot{first, first.Other()} {
		if !isBad(m.vars, slot) && starts(slot) {
			start.Slot, start.EnvID = slot, m.vars["env_id"]
			return start, nil
		}
	}
	return start, ErrNoBoot
}

// machine is U-Boot while it runs: the environment in memory, and which copy it came from.
type machine struct {
	store   uboot.Store
	nor     bool // flags are active and obsolete
	vars    map[string]string
	current int // -1: defaults
	flag    byte
}

// load is env_check_redund, or env_flash_init on NOR flash, and env_import.
func (b *Board) load() (*machine, error) {
	_, n := b.Store.Geometry()
	m := &machine{store: b.Store, current: -1, nor: b.Store.Traits().Flags == uboot.ActiveObsolete}
	wins := newer
	if m.nor {
		wins = newerOnNOR
	}
	data := make([][]byte, n)
	flags := make([]byte, n)
	for i := range n {
		image, err := b.Store.ReadCopy(i)
		if errors.Is(err, uboot.ErrUnreadable) {
			continue
		} else if err != nil {
			return nil, err
		}
		body := image[4:]
		if n == 2 {
			flags[i], body = image[4], image[5:]
		}
		if crc32.ChecksumIEEE(body) == binary.NativeEndian.Uint32(image) {
			data[i] = body
		}
	}
	for i := range n {
		if data[i] != nil && (m.current < 0 || wins(flags[i], flags[m.current])) {
			m.current = i
		}
	}
	if m.current >= 0 {
		if vars, ok := parse(data[m.current]); ok {
			m.vars, m.flag = vars, flags[m.current]
			return m, nil
		}
	}
	m.current, m.vars = -1, maps.Clone(b.Default)
	return m, nil
}

// newer tells whether the second copy, with flag b, wins over the first, with flag a.
func newer(b, a byte) bool {
	if a == 255 && b == 0 {
		return true
	}
	if b == 255 && a == 0 {
		return false
	}
	return b > a
}

// newerOnNOR is the same by the rule of env/flash.c.
func newerOnNOR(b, a byte) bool {
	switch {
	case a == 1 && b == 0 || a == b || a == 255:
		return false
	case a == 0 && b == 1 || b == 255:
		return true
	}
	return false
}

// parse is himport_r.
func parse(data []byte) (map[string]string, bool) {
	vars := map[string]string{}
	for entry := range strings.SplitSeq(string(data), "\x00") {
		if entry == "" {
			break
		}
		name, value, _ := strings.Cut(entry, "=")
		if name == "" && value != "" {
			return nil, false
		}
		delete(vars, name)
		if value != "" {
			vars[name] = value
		}
	}
	return vars, true
}

// save is saveenv: the copy that was not loaded, with the next flag.
func (m *machine) save() error {
	size, n := m.store.Geometry()
	flag := m.flag + 1
	if m.nor {
		flag = 1
	}
	image, err := export(m.vars, flag, size, n == 2)
	if err != nil {
		return err
	}
	target := 0
	if n == 2 && m.current == 0 {
		target = 1
	}
	if err := m.store.WriteCopy(target, image); err != nil {
		return err
	}
	if m.nor && m.current >= 0 && n == 2 {
		if err := m.store.Obsolete(m.current); err != nil {
			return err
		}
	}
	m.current, m.flag = target, flag
	return nil
}

// export is hexport_r: sorted, and without empty values.
func export(vars map[string]string, flag byte, size int, redundant bool) ([]byte, error) {
	image := make([]byte, size)
	body := image[4:]
	if redundant {
		image[4], body = flag, image[5:]
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if vars[name] != "" {
			text.WriteString(name + "=" + vars[name] + "\x00")
		}
	}
	if text.Len()+1 > len(body) {
		return nil, fmt.Errorf("save environment: %d bytes do not fit in %d", text.Len()+1, len(body))
	}
	copy(body, text.String())
	binary.NativeEndian.PutUint32(image, crc32.ChecksumIEEE(body))
	return image, nil
}

// fallBack is altbootcmd up to its last command, which is bootcmd. If the other
// slot is bad there is nowhere to go, and the trial goes on.
func (m *machine) fallBack() (bool, error) {
	failed := chosen(m.vars)
	back := failed.Other()
	if isBad(m.vars, back) {
		return false, nil
	}
	if !isBad(m.vars, failed) {
		m.vars["boot_bad"] = strings.TrimSpace(m.vars["boot_bad"] + " " + string(failed))
	}
	m.vars["boot_slot"] = string(back)
	m.vars["upgrade_available"] = "0"
	m.vars["bootcount"] = "0"
	return true, m.save()
}

// chosen reads boot_slot as the script does: anything but b is a.
func chosen(vars map[string]string) bootctl.Slot {
	if vars["boot_slot"] == "b" {
		return bootctl.SlotB
	}
	return bootctl.SlotA
}

func isBad(vars map[string]string, slot bootctl.Slot) bool {
	return slices.Contains(strings.Fields(vars["boot_bad"]), string(slot))
}

// decimal is env_get_ulong: leading digits, or 0.
func decimal(s string) int {
	end := 0
	for end < len(s) && end < 9 && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, _ := strconv.Atoi(s[:end])
	return n
}
