// SPDX-License-Identifier: Apache-2.0

package uboot_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/mtd"
	"github.com/updaterd/updaterd/bootctl/mtd/mtdtest"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
)

// Small chips: a copy of 0x180 bytes takes two blocks of 0x100, with a rest.
var (
	norChip  = mtd.Info{Kind: mtd.NOR, Size: 0x1000, EraseSize: 0x100, WriteSize: 1, Bits: true}
	nandChip = mtd.Info{Kind: mtd.NAND, Size: 0x1000, EraseSize: 0x100, WriteSize: 0x20}
)

// flashConfig has two areas of three blocks, of which the copies need two.
func flashConfig() uboot.Config {
	return uboot.Config{
		{Path: "/dev/null", Offset: 0x200, Size: 0x180, SectorSize: 0x100, Sectors: 3},
		{Path: "/dev/null", Offset: 0x800, Size: 0x180, SectorSize: 0x100, Sectors: 3},
	}
}

// flashStore is a store on a chip in memory; any character device lends its name.
func flashStore(t *testing.T, chip *mtdtest.Flash, config uboot.Config) uboot.Store {
	t.Helper()
	s, err := tryFlashStore(t.TempDir(), chip, config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryFlashStore(dir string, chip *mtdtest.Flash, config uboot.Config) (uboot.Store, error) {
	return uboot.OpenStoreIn(config, filepath.Join(dir, "lock"), uboot.System{
		Flash: func(string, int) (uboot.Flash, error) { return chip, nil }, Sysfs: dir})
}

func formatted(t *testing.T, info mtd.Info, config uboot.Config) *mtdtest.Flash {
	t.Helper()
	chip := mtdtest.New(info)
	board := ubootmodel.Board{Store: flashStore(t, chip, config), Default: ubootmodel.Factory("a")}
	if err := board.Format(); err != nil {
		t.Fatal(err)
	}
	return chip
}

// The order of what happens to the flash is the product.
func TestFlashOrder(t *testing.T) {
	for _, tc := range []struct {
		name string
		info mtd.Info
		bad  []int64
		want [][]string // of three changes
	}{
		{"NOR", norChip, nil, [][]string{
			{"erase 0x100 bytes at 0x800", "write 0x100 bytes at 0x800", "erase 0x100 bytes at 0x900", "write 0x80 bytes at 0x900", "write 0x1 bytes at 0x204"},
			{"erase 0x100 bytes at 0x200", "write 0x100 bytes at 0x200", "erase 0x100 bytes at 0x300", "write 0x80 bytes at 0x300", "write 0x1 bytes at 0x804"},
		}},
		{"NAND", nandChip, nil, [][]string{
			{"erase 0x100 bytes at 0x800", "write 0x100 bytes at 0x800", "erase 0x100 bytes at 0x900", "write 0x80 bytes at 0x900"},
			{"erase 0x100 bytes at 0x200", "write 0x100 bytes at 0x200", "erase 0x100 bytes at 0x300", "write 0x80 bytes at 0x300"},
		}},
		{"NAND with bad blocks", nandChip, []int64{0x200, 0x900}, [][]string{
			{"erase 0x100 bytes at 0x800", "write 0x100 bytes at 0x800", "erase 0x100 bytes at 0xa00", "write 0x80 bytes at 0xa00"},
			{"erase 0x100 bytes at 0x300", "write 0x100 bytes at 0x300", "erase 0x100 bytes at 0x400", "write 0x80 bytes at 0x400"},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			chip := mtdtest.New(tc.info)
			chip.BadBlocks = tc.bad
			store := flashStore(t, chip, flashConfig())
			board := ubootmodel.Board{Store: store, Default: ubootmodel.Factory("a")}
			if err := board.Format(); err != nil {
				t.Fatal(err)
			}
			c := uboot.New(store)
			for i, want := range append(tc.want, tc.want...) {
				chip.Log = nil
				if err := c.Apply(bootctl.Change{EnvID: fmt.Sprint(i)}); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, chip.Log); diff != "" {
					t.Errorf("change %d: %s", i, diff)
				}
			}
			chip.Log = nil
			if err := c.Apply(bootctl.Change{EnvID: "3"}); err != nil || chip.Log != nil {
				t.Errorf("a change that changes nothing = %v, and did %q", err, chip.Log)
			}
		})
	}
}

// Wherever the power is cut in a change, every reader finds the old environment
// or the new one, all find the same, and the next change works.
func TestFlashCuts(t *testing.T) {
	for _, tc := range []struct {
		name string
		info mtd.Info
		bad  []int64
	}{{"NOR", norChip, nil}, {"NAND", nandChip, nil}, {"NAND with bad blocks", nandChip, []int64{0x300, 0x800}}} {
		t.Run(tc.name, func(t *testing.T) {
			chip := mtdtest.New(tc.info)
			chip.BadBlocks = tc.bad
			store := flashStore(t, chip, flashConfig())
			board := ubootmodel.Board{Store: store, Default: ubootmodel.Factory("a")}
			if err := board.Format(); err != nil {
				t.Fatal(err)
			}
			for first := range 2 { // which copy is in force before
				for _, both := range []bool{false, true} {
					cutEverywhere(t, chip, bootctl.Change{EnvID: "new", BothCopies: both}, tc.info.Kind)
				}
				if err := uboot.New(store).Apply(bootctl.Change{EnvID: fmt.Sprint("other-copy-", first)}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// cutEverywhere makes a change again and again, and cuts the power one step later each time.
func cutEverywhere(t *testing.T, before *mtdtest.Flash, change bootctl.Change, kind mtd.Kind) {
	t.Helper()
	dir := t.TempDir()
	for n := 0; ; n++ {
		chip := before.Clone()
		store, err := tryFlashStore(dir, chip, flashConfig())
		if err != nil {
			t.Fatal(err)
		}
		old := envID(t, store)
		chip.CutAfter(n)
		err = uboot.New(store).Apply(change)
		if err == nil {
			if n < 0x180 {
				t.Errorf("only %d cuts were made", n)
			}
			t.Logf("%+v: %d cuts", change, n)
			return
		}
		if !errors.Is(err, mtdtest.ErrCut) {
			t.Fatal(err)
		}
		chip.PowerOn()
		checkReaders(t, fmt.Sprintf("cut %d", n), store, kind, old, change.EnvID)
	}
}

func envID(t *testing.T, store uboot.Store) string {
	t.Helper()
	st, err := uboot.New(store).Status()
	if err != nil {
		t.Fatal(err)
	}
	return st.EnvID
}

// checkReaders checks that all readers agree on one of two env_ids, and that it
// can be changed from there.
func checkReaders(t *testing.T, name string, store uboot.Store, kind mtd.Kind, old, new string) {
	t.Helper()
	var valid [2]bool
	var flag [2]byte
	var ids [2]string
	for i := range 2 {
		image, err := store.ReadCopy(i)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c := uboot.DecodeCopy(image, true)
		if valid[i], flag[i] = c.Valid, c.Flag; !c.Valid {
			continue
		}
		env, err := uboot.Parse(c.Data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ids[i] = env.Get("env_id")
	}
	st, err := uboot.New(store).Status()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if st.EnvID != old && st.EnvID != new {
		t.Fatalf("%s: env_id = %q; want %q or %q", name, st.EnvID, old, new)
	}
	for who, choose := range readers {
		if kind == mtd.NAND && who != "U-Boot, env/sf.c" { // that one is NAND's, too
			continue
		}
		if i := choose(valid, flag); i < 0 || ids[i] != st.EnvID {
			t.Errorf("%s: %s chooses copy %d of %q (valid %v, flags %v), but we %q", name, who, i+1, ids, valid, flag, st.EnvID)
		}
	}
	for i := range 3 {
		id := fmt.Sprint("after", i)
		if err := uboot.New(store).Apply(bootctl.Change{EnvID: id}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := envID(t, store); got != id {
			t.Fatalf("%s: env_id = %q after it was set to %q", name, got, id)
		}
	}
}

// What lies behind a copy in its last block stays, and there is a warning.
func TestFlashShared(t *testing.T) {
	for _, info := range []mtd.Info{norChip, nandChip} {
		chip := formatted(t, info, flashConfig())
		if w := flashStore(t, chip, flashConfig()).Traits().Warnings; w != nil {
			t.Errorf("%v: Warnings = %q", info.Kind, w)
		}
		other := bytes.Repeat([]byte("precious"), 4)
		if _, err := chip.WriteAt(other, 0x3a0); err != nil {
			t.Fatal(err)
		}
		store := flashStore(t, chip, flashConfig())
		if w := store.Traits().Warnings; len(w) != 1 || !strings.Contains(w[0], "/dev/null at 0x200, in the same erase block") {
			t.Errorf("%v: Warnings = %q", info.Kind, w)
		}
		for i := range 4 {
			if err := uboot.New(store).Apply(bootctl.Change{EnvID: fmt.Sprint(i), BothCopies: i%2 == 0}); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(chip.Raw()[0x3a0:0x3c0], other) {
			t.Errorf("%v: what lies behind the copy was changed", info.Kind)
		}
	}
}

func TestFlashErrors(t *testing.T) {
	config := flashConfig()
	for _, tc := range []struct {
		name   string
		info   mtd.Info
		change func(c uboot.Config)
		want   string
	}{
		{"sector size", norChip, func(c uboot.Config) { c[0].SectorSize = 0x80 }, "is not the erase size"},
		{"two blocks as a sector of NAND", nandChip, func(c uboot.Config) { c[0].SectorSize = 0x200 }, "is not the erase size"},
		{"start", norChip, func(c uboot.Config) { c[1].Offset = 0x880 }, "not the start of an erase block"},
		{"negative", norChip, func(c uboot.Config) { c[1].Offset = -0x800 }, "is negative"},
		{"outside", norChip, func(c uboot.Config) { c[1].Offset = 0xe00 }, "lie outside"},
		{"far outside", norChip, func(c uboot.Config) { c[1].Sectors = 1 << 60 }, "lie outside"},
		{"too few sectors", norChip, func(c uboot.Config) { c[1].Sectors = 1 }, "does not fit the 1 sectors"},
		{"areas overlap", nandChip, func(c uboot.Config) { c[1].Offset = 0x400 }, "share an erase block"},
		{"one block", norChip, func(c uboot.Config) {
			for i := range c {
				c[i].Size, c[i].Sectors = 0x80, 0
			}
			c[1].Offset = 0x200
		}, "share an erase block"},
		{"another kind", mtd.Info{Kind: unix.MTD_DATAFLASH, Size: 0x1000, EraseSize: 0x100, WriteSize: 1}, nil, "is DataFlash"},
		{"no single bits", mtd.Info{Kind: mtd.NOR, Size: 0x1000, EraseSize: 0x100, WriteSize: 16}, nil, "cannot clear a single bit"},
	} {
		c := append(uboot.Config{}, config...)
		if tc.change != nil {
			tc.change(c)
		}
		if _, err := tryFlashStore(t.TempDir(), mtdtest.New(tc.info), c); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: OpenStore = %v; want %q", tc.name, err, tc.want)
		}
	}
	// A medium that fails: one change is an error, and the environment stays.
	for _, tc := range []struct{ operation, want, after string }{
		{"erase 0x100 bytes at 0x900", "write /dev/null at 0x800", ""},
		{"write 0x100 bytes at 0x800", "write /dev/null at 0x800", ""},
		{"write 0x1 bytes at 0x204", "clear the flag of /dev/null at 0x200", ""},
	} {
		chip := formatted(t, norChip, config)
		chip.Fail = func(operation string) error {
			if operation == tc.operation {
				return unix.EIO
			}
			return nil
		}
		store := flashStore(t, chip, config)
		if err := uboot.New(store).Apply(bootctl.Change{EnvID: "new"}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s fails: Apply = %v; want %q", tc.operation, err, tc.want)
		}
		if got := envID(t, store); got != tc.after {
			t.Errorf("%s fails: env_id = %q", tc.operation, got)
		}
	}
	// Too many bad blocks under one copy leave the other one.
	chip := formatted(t, nandChip, config)
	chip.BadBlocks = []int64{0x800, 0xa00}
	store := flashStore(t, chip, config)
	if st, err := uboot.New(store).Status(); err != nil || st.Copies != 1 {
		t.Errorf("Status = %+v, %v; want one copy", st, err)
	}
	if err := uboot.New(store).Apply(bootctl.Change{EnvID: "new"}); err == nil || !strings.Contains(err.Error(), "only 1 are good") {
		t.Errorf("Apply = %v; want an error about good blocks", err)
	}
}

// A chip that is locked is unlocked for each block, and locked again also after an error.
func TestFlashLock(t *testing.T) {
	chip := formatted(t, norChip, flashConfig())
	chip.Protected = true
	store := flashStore(t, chip, flashConfig())
	if err := uboot.New(store).Apply(bootctl.Change{EnvID: "new"}); err != nil || !chip.Protected {
		t.Fatalf("Apply = %v, locked %v", err, chip.Protected)
	}
	chip.Fail = func(operation string) error {
		if strings.HasPrefix(operation, "write") {
			return unix.EIO
		}
		return nil
	}
	if err := uboot.New(store).Apply(bootctl.Change{EnvID: "newer"}); err == nil || !chip.Protected {
		t.Fatalf("Apply = %v, locked %v", err, chip.Protected)
	}
	chip.Fail = nil
	config := flashConfig()
	config[0].NoLock, config[1].NoLock = true, true
	if err := uboot.New(flashStore(t, chip, config)).Apply(bootctl.Change{EnvID: "newer"}); err == nil || !strings.Contains(err.Error(), "locked block") {
		t.Fatalf("Apply without unlocking = %v", err)
	}
}
