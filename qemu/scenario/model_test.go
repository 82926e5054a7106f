// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/updaterd/updaterd/bootctl"
	bootuboot "github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/uboot"
)

func containsAll(text string, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) })
}

// tried is a slot that the real U-Boot wanted to start; on a card without
// partitions' contents none can be.
var tried = regexp.MustCompile(`slot (\w) cannot be loaded`)

// TestModelInOrder compares what the model of U-Boot, which the power-cut
// simulations trust, does with an environment of scheme bootorder with what the
// real one does: which slots it wants to start, over several resets, and what it
// leaves on the card. TestModelOfCopies does so for scheme bootcount.
func TestModelInOrder(t *testing.T) {
	t.Parallel()
	w := workshopFor(t)
	order, err := uboot.BootOrder()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		env    map[string]string
		starts int
	}{
		{"two slots", map[string]string{"BOOT_ORDER": "B A", "BOOT_A_LEFT": "2", "BOOT_B_LEFT": "1"}, 7},
		{"one slot given up", map[string]string{"BOOT_ORDER": "A", "BOOT_A_LEFT": "1", "BOOT_B_LEFT": "0"}, 5},
		{"ten starts are hexadecimal", map[string]string{"BOOT_ORDER": "R B A", "BOOT_B_LEFT": "10", "BOOT_A_LEFT": ""}, 4},
		{"nothing set, and a trial", map[string]string{"BOOT_ORDER": "", "BOOT_A_LEFT": "", "BOOT_B_LEFT": "", "upgrade_available": "1"}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := w.newDevice(t, assets.Disk{Flavour: assets.Small, Factory: order, Env: c.env})
			if err := dev.PowerOn(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
			var got []string
			for range c.starts {
				text, err := dev.VM.Console.Expect(within(t, time.Minute), tried.String())
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, strings.ToLower(tried.FindStringSubmatch(text)[1]))
			}
			dev.PowerOff()
			env, _, err := dev.Env()
			if err != nil {
				t.Fatal(err)
			}

			model := ubootmodel.Board{Store: ubootmodel.NewMemory(uboot.EnvSize, 2), Default: maps.Clone(order)}
			maps.Copy(model.Default, c.env)
			if err := model.Format(); err != nil {
				t.Fatal(err)
			}
			var want []string
			var after []map[string]string // what is on the card when a slot is loaded
			control := bootuboot.New(model.Store)
			for len(want) < c.starts+1 {
				_, _ = model.Boot(func(slot bootctl.Slot) bool {
					vars, err := control.Env()
					if err != nil {
						t.Fatal(err)
					}
					want, after = append(want, string(slot)), append(after, vars.Vars())
					return false
				})
			}
			if diff := cmp.Diff(want[:c.starts], got); diff != "" {
				t.Fatalf("starts of the model, and of U-Boot: %s", diff)
			}
			// The plug may have been pulled before the next start was counted, or after.
			for _, name := range []string{"ethaddr", "fdtcontroladdr", "stdin", "stdout", "stderr"} {
				delete(env, name)
			}
			if last := cmp.Diff(after[c.starts-1], env); last != "" && !cmp.Equal(after[c.starts], env) {
				t.Errorf("the environment of the model, and of U-Boot: %s", last)
			}
			t.Logf("%s: starts %s", c.name, strings.Join(got, " "))
		})
	}
}
