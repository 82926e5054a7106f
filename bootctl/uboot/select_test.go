// SPDX-License-Identifier: Apache-2.0

package uboot_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
)

// readers are those who choose between two copies. They are written anew here,
// from what the code of each does, and not with what is tested.
var readers = map[string]func(valid [2]bool, flag [2]byte) int{
	"U-Boot, env/flash.c": func(valid [2]bool, flag [2]byte) int {
		const active, obsolete = 1, 0
		switch {
		case valid[0] && !valid[1]:
			return 0
		case !valid[0] && valid[1]:
			return 1
		case !valid[0]:
			return -1
		case flag[0] == active && flag[1] == obsolete:
			return 0
		case flag[0] == obsolete && flag[1] == active:
			return 1
		case flag[0] == flag[1], flag[0] == 0xff:
			return 0
		case flag[1] == 0xff:
			return 1
		}
		return 0
	},
	"U-Boot, env/sf.c": counting,
	"libubootenv": func(valid [2]bool, flag [2]byte) int {
		if !valid[0] || !valid[1] {
			return counting(valid, flag)
		}
		switch {
		case flag[1] == 0xff:
			return 1
		case flag[0] == 0xff:
			return 0
		case flag[1] > flag[0]:
			return 1
		}
		return 0
	},
}

// counting is env_check_redund.
func counting(valid [2]bool, flag [2]byte) int {
	switch {
	case valid[0] && !valid[1]:
		return 0
	case !valid[0] && valid[1]:
		return 1
	case !valid[0]:
		return -1
	case flag[0] == 255 && flag[1] == 0:
		return 1
	case flag[1] == 255 && flag[0] == 0, flag[0] >= flag[1]:
		return 0
	}
	return 1
}

// For every pair of flags: on NAND and all else we choose as U-Boot does; on NOR
// flash we choose as every reader does where they agree, and else as one of them.
func TestSelectAsOthersDo(t *testing.T) {
	both := [2]bool{true, true}
	for a := range 256 {
		for b := range 256 {
			flag := [2]byte{byte(a), byte(b)}
			first, second := uboot.Copy{Valid: true, Flag: flag[0]}, uboot.Copy{Valid: true, Flag: flag[1]}
			if got, want := uboot.Counter.Select(first, second), counting(both, flag); got != want {
				t.Errorf("Counter, flags %v: %d; U-Boot chooses %d", flag, got, want)
			}
			got := uboot.ActiveObsolete.Select(first, second)
			chosen := map[int]bool{}
			for _, choose := range readers {
				chosen[choose(both, flag)] = true
			}
			regular := a <= 1 && b <= 1
			if !chosen[got] || regular && len(chosen) != 1 {
				t.Errorf("ActiveObsolete, flags %v: %d; others choose %v", flag, got, chosen)
			}
		}
	}
}

// No single flipped bit of either copy yields a value that nobody wrote: what is
// in force afterwards is the current environment or the one before it, and
// U-Boot sees the same. The flag is not covered by the checksum.
func TestBitFlips(t *testing.T) {
	const size = 0x100
	type flags [2]byte
	for convention, pairs := range map[uboot.Convention][]flags{
		// First the flag of the previous environment. 255 is followed by 0.
		uboot.Counter: {{0, 1}, {1, 2}, {127, 128}, {254, 255}, {255, 0}},
		// Active and obsolete; and both active, after a cut between the two steps.
		uboot.ActiveObsolete: {{0, 1}, {1, 1}},
	} {
		for _, pair := range pairs {
			for first := range 2 { // which copy is the previous one
				m := ubootmodel.NewMemory(size, 2)
				m.Medium.Flags = convention
				var both [2]map[string]string
				for i := range 2 {
					both[i] = map[string]string{"boot_slot": "a", "env_id": fmt.Sprint(i)}
					env := &uboot.Env{}
					for _, name := range []string{"boot_slot", "env_id"} {
						if err := env.Set(name, both[i][name]); err != nil {
							t.Fatal(err)
						}
					}
					image, err := uboot.EncodeCopy(env, pair[i], size, true)
					if err != nil {
						t.Fatal(err)
					}
					copy(m.Raw(i^first), image)
				}
				board := ubootmodel.Board{Store: m, Default: ubootmodel.Factory("b")}
				for i := range 2 {
					for bit := range size * 8 {
						m.Raw(i)[bit/8] ^= 1 << (bit % 8)
						got := vars(t, m)
						if !cmp.Equal(got, both[0]) && !cmp.Equal(got, both[1]) {
							t.Fatalf("convention %d, flags %v, bit %d of copy %d flipped: %v", convention, pair, bit, i, got)
						}
						start, err := board.Boot(func(bootctl.Slot) bool { return true })
						if err != nil || start.Slot != "a" || convention == uboot.Counter && start.EnvID != got["env_id"] {
							t.Fatalf("convention %d, flags %v, bit %d of copy %d flipped: U-Boot starts %+v, %v, but we read %v", convention, pair, bit, i, start, err, got)
						}
						m.Raw(i)[bit/8] ^= 1 << (bit % 8)
					}
				}
			}
		}
	}
	// A single copy is as it was, or refused.
	m := medium(t, 1, nil)
	for bit := range len(m.Raw(0)) * 8 {
		m.Raw(0)[bit/8] ^= 1 << (bit % 8)
		if _, err := uboot.New(m).Env(); !errors.Is(err, bootctl.ErrDamaged) {
			t.Fatalf("bit %d of the only copy flipped: %v", bit, err)
		}
		m.Raw(0)[bit/8] ^= 1 << (bit % 8)
	}
}
