// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
	"github.com/updaterd/updaterd/qemu/assets"
	board "github.com/updaterd/updaterd/qemu/uboot"
)

// A stored copy of the environment: what differs from the default, and its flag.
type stored struct {
	vars map[string]string
	flag byte
	torn int // the bytes from here on never came
}

// TestModelOfCopies starts the real U-Boot on copies of the environment as power
// cuts leave them, and compares it with the model that the proof uses: which slots
// it wants to start, in which order, and what both copies hold then.
func TestModelOfCopies(t *testing.T) {
	t.Parallel()
	trial := func(count string) map[string]string {
		return map[string]string{"boot_slot": "b", "upgrade_available": "1", "bootcount": count}
	}
	vars := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	a, b := vars("boot_slot", "a"), vars("boot_slot", "b")
	dev := workshopFor(t).newDevice(t, assets.Disk{Flavour: assets.Small, EnvID: "factory"})
	defaults, err := board.Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		copies [2]stored
	}{
		{"as from the factory", [2]stored{{vars: a, flag: 2}, {vars: a, flag: 1}}},
		{"the second copy is newer", [2]stored{{vars: a, flag: 1}, {vars: b, flag: 2}}},
		{"equal flags", [2]stored{{vars: b, flag: 7}, {vars: a, flag: 7}}},
		{"0 follows 255, second", [2]stored{{vars: a, flag: 255}, {vars: b, flag: 0}}},
		{"0 follows 255, first", [2]stored{{vars: b, flag: 0}, {vars: a, flag: 255}}},
		{"254 and 0", [2]stored{{vars: b, flag: 254}, {vars: a, flag: 0}}},
		{"first copy torn", [2]stored{{vars: a, flag: 3, torn: 512}, {vars: b, flag: 2}}},
		{"second copy torn", [2]stored{{vars: a, flag: 2}, {vars: b, flag: 3, torn: 1024}}},
		{"torn in the middle of a trial", [2]stored{{vars: trial("1"), flag: 3}, {vars: trial("2"), flag: 4, torn: 512}}},
		{"both torn", [2]stored{{vars: b, flag: 2, torn: 512}, {vars: b, flag: 3, torn: 512}}},
		{"primary bad", [2]stored{{vars: vars("boot_slot", "b", "boot_bad", "b"), flag: 2}, {vars: a, flag: 1}}},
		{"both bad", [2]stored{{vars: vars("boot_bad", "b a"), flag: 2}, {vars: a, flag: 1}}},
		{"other names in the list", [2]stored{{vars: vars("boot_bad", "x aa b"), flag: 2}, {vars: a, flag: 1}}},
		{"first start of a trial", [2]stored{{vars: trial("0"), flag: 2}, {vars: a, flag: 1}}},
		{"last start of a trial", [2]stored{{vars: trial("2"), flag: 2}, {vars: a, flag: 1}}},
		{"trial used up", [2]stored{{vars: trial("3"), flag: 2}, {vars: a, flag: 1}}},
		{"trial used up, second copy in force, flag 255", [2]stored{{vars: a, flag: 254}, {vars: trial("3"), flag: 255}}},
		{"trial used up, one copy torn", [2]stored{{vars: trial("3"), flag: 2}, {vars: a, flag: 3, torn: 512}}},
		{"trial used up, nowhere to fall back to", [2]stored{{vars: with(trial("9"), "boot_bad", "a"), flag: 2}, {vars: a, flag: 1}}},
		{"trial used up, failed slot listed already", [2]stored{{vars: with(trial("3"), "boot_bad", "b"), flag: 2}, {vars: a, flag: 1}}},
		{"no limit", [2]stored{{vars: with(trial("9"), "bootlimit", ""), flag: 2}, {vars: a, flag: 1}}},
		{"a count outside of a trial", [2]stored{{vars: vars("bootcount", "9"), flag: 2}, {vars: a, flag: 1}}},
		{"a slot that is none", [2]stored{{vars: vars("boot_slot", "x"), flag: 2}, {vars: b, flag: 1}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var images [2][]byte
			for i, c := range tc.copies {
				env := maps.Clone(defaults)
				maps.Copy(env, c.vars)
				image, err := board.Encode(env, board.EnvSize, c.flag)
				if err != nil {
					t.Fatal(err)
				}
				if images[i] = image; c.torn > 0 {
					clear(image[c.torn:])
				}
			}
			err := dev.Disk.Medium(func(card *os.File) error {
				_, err := card.WriteAt(images[0], board.EnvOffset)
				_, err2 := card.WriteAt(images[1], board.EnvOffset2)
				return errors.Join(err, err2)
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx := within(t, 2*time.Minute)
			if err := dev.PowerOn(ctx); err != nil {
				t.Fatal(err)
			}
			_, err = dev.VM.Console.Expect(ctx, "no slot can be started")
			text := dev.VM.Console.Text()
			dev.PowerOff()
			if err != nil {
				t.Fatalf("%v; the console's last words:\n%s", err, tail(text))
			}
			var got []string
			for _, found := range tried.FindAllStringSubmatch(text, -1) {
				got = append(got, found[1])
			}
			medium := ubootmodel.NewMemory(board.EnvSize, 2)
			for i := range images {
				copy(medium.Raw(i), images[i])
			}
			model := ubootmodel.Board{Store: medium, Default: defaults}
			var want []string
			start, err := model.Boot(func(slot bootctl.Slot) bool {
				want = append(want, string(slot))
				return false
			})
			if !errors.Is(err, ubootmodel.ErrNoBoot) {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("U-Boot tries the slots %q, the model %q", got, want)
			}
			if fell := strings.Contains(text, "falling back to slot"); fell != start.FellBack {
				t.Errorf("U-Boot falls back: %v, the model: %v", fell, start.FellBack)
			}
			for i, at := range []int64{board.EnvOffset, board.EnvOffset2} {
				real := readCard(t, dev, at, at+board.EnvSize)
				if diff := cmp.Diff(readable(real), readable(medium.Raw(i))); diff != "" {
					t.Errorf("copy %d differs: %s", i+1, diff)
				}
			}
		})
	}
}

func with(vars map[string]string, name, value string) map[string]string {
	vars[name] = value
	return vars
}

// readable is what a copy says, but for what U-Boot finds out at each start.
func readable(image []byte) map[string]string {
	c := uboot.DecodeCopy(image, true)
	if !c.Valid {
		return map[string]string{"": "the checksum does not fit"}
	}
	env, err := uboot.Parse(c.Data)
	if err != nil {
		return map[string]string{"": err.Error()}
	}
	vars := env.Vars()
	for _, name := range []string{"ethaddr", "fdtcontroladdr", "stdin", "stdout", "stderr"} {
		delete(vars, name)
	}
	vars["(flag)"] = fmt.Sprint(c.Flag)
	return vars
}
