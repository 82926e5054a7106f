// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bootctl/uboot/ubootmodel"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"updater-bootctl": func() { os.Exit(Run("1.0", os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

func TestScripts(t *testing.T) {
	for dir, env := range map[string]map[string]string{"testdata": ubootmodel.Factory("a"), "testdata/bootorder": ubootmodel.FactoryOrder("a")} {
		testscript.Run(t, testscript.Params{
			Dir: dir,
			Setup: func(e *testscript.Env) error {
				if err := os.WriteFile(filepath.Join(e.WorkDir, "erased"), make([]byte, 0x10000), 0o600); err != nil {
					return err
				}
				return format(e.WorkDir, env)
			},
		})
	}
}

func factory(dir string) error { return format(dir, ubootmodel.Factory("a")) }

// format makes a disk with two copies of an environment, and fw_env.config for it.
func format(dir string, env map[string]string) error {
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, make([]byte, 0x10000), 0o600); err != nil {
		return err
	}
	config := uboot.Config{{Path: disk, Offset: 0x4000, Size: 0x1000}, {Path: disk, Offset: 0x8000, Size: 0x1000}}
	if err := os.WriteFile(filepath.Join(dir, "fw_env.config"), []byte(config.String()), 0o600); err != nil {
		return err
	}
	store, err := uboot.OpenStore(config, filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	board := ubootmodel.Board{Store: store, Default: env}
	return board.Format()
}

// The usage lists every command and every exit code.
func TestUsage(t *testing.T) {
	var out, errs bytes.Buffer
	if code := Run("1.0", []string{"--help"}, &out, &errs); code != exitOK || errs.Len() > 0 {
		t.Fatalf("Run = %d, %s", code, errs.String())
	}
	for _, c := range commands {
		if !strings.Contains(out.String(), "  "+strings.TrimSpace(c.name+" "+c.args)+"\n") {
			t.Errorf("the usage lacks %s", c.name)
		}
	}
	for i, e := range exitCodes {
		if e.code != i || !strings.Contains(out.String(), fmt.Sprintf("  %d  %s\n", e.code, e.meaning)) {
			t.Errorf("the usage lacks exit code %d", i)
		}
	}
}

// mark-good refuses to confirm a slot that is not the one that runs.
func TestMarkGoodOnTheWrongSlot(t *testing.T) {
	for _, tc := range []struct {
		cmdline string
		want    int
	}{
		{"root=/dev/mmcblk0p2 updaterd.slot=b quiet\n", exitOK},
		{"root=/dev/mmcblk0p1 updaterd.slot=a\n", exitFailure},
		{"root=/dev/nfs\n", exitOK},
		{"updaterd.slot=nonsense\n", exitOK},
	} {
		dir := t.TempDir()
		if err := factory(dir); err != nil {
			t.Fatal(err)
		}
		options := uboot.Options{Config: filepath.Join(dir, "fw_env.config"), LockFile: filepath.Join(dir, "lock")}
		c, err := uboot.Open(options)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(bootctl.Change{Primary: "b", Trial: bootctl.TrialBegin}); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		a := &app{options: options, cmdline: filepath.Join(dir, "cmdline"), stdout: &out, stderr: &errs}
		if err := os.WriteFile(a.cmdline, []byte(tc.cmdline), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := a.exit(a.markGood(nil)); got != tc.want {
			t.Errorf("%q: mark-good = %d, %s; want %d", tc.cmdline, got, errs.String(), tc.want)
		}
		st, err := c.Status()
		if err != nil || st.Trial != (tc.want != exitOK) {
			t.Errorf("%q: afterwards %+v, %v", tc.cmdline, st, err)
		}
	}
}

func TestExitCodes(t *testing.T) {
	blank := func(dir string) error { return os.WriteFile(filepath.Join(dir, "disk"), make([]byte, 0x10000), 0o600) }
	one := func(dir string) error {
		data, err := os.ReadFile(filepath.Join(dir, "disk"))
		if err != nil {
			return err
		}
		data[0x4000]++
		return os.WriteFile(filepath.Join(dir, "disk"), data, 0o600)
	}
	run := func(dir string, args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		args = append([]string{"--config", filepath.Join(dir, "fw_env.config"), "--lock", filepath.Join(dir, "lock")}, args...)
		code := Run("1.0", args, &out, &errs)
		return code, out.String(), errs.String()
	}
	for _, tc := range []struct {
		name   string
		before func(dir string) error
		args   string
		want   int
		output string
	}{
		{"fine", nil, "status", exitOK, "both intact"},
		{"one copy", one, "status", exitOK, "one of two copies is intact; the next change repairs the other"},
		{"usage", nil, "status --frob", exitUsage, "hint:"},
		{"damaged", blank, "status", exitDamaged, "nothing was ever stored there"},
		{"damaged, change", blank, "mark-good", exitDamaged, "updater-bootctl restore"},
		{"bad slot", func(dir string) error { run(dir, "mark-bad", "b"); return nil }, "set-primary b", exitBadSlot, "marked bad"},
		{"no way back", func(dir string) error { run(dir, "set", "altbootcmd="); return nil }, "set-primary --trial b", exitContract, "altbootcmd is not set"},
		{"no way back, status", func(dir string) error { run(dir, "set", "altbootcmd="); return nil }, "status", exitOK, "problem:       altbootcmd"},
		{"not set", nil, "get nothing", exitNotSet, "nothing is not set"},
		{"lock", func(dir string) error {
			if err := os.Remove(filepath.Join(dir, "lock")); err != nil {
				return err
			}
			return os.Mkdir(filepath.Join(dir, "lock"), 0o700)
		}, "set a=1", exitFailure, "lock boot environment"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := factory(dir); err != nil {
				t.Fatal(err)
			}
			// Formatting takes no lock, so the file is made here.
			if err := os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if tc.before != nil {
				if err := tc.before(dir); err != nil {
					t.Fatal(err)
				}
			}
			disk, err := os.ReadFile(filepath.Join(dir, "disk"))
			if err != nil {
				t.Fatal(err)
			}
			code, out, errs := run(dir, strings.Fields(tc.args)...)
			if code != tc.want || !strings.Contains(out+errs, tc.output) {
				t.Errorf("%s = %d, %s%s; want %d and %q", tc.args, code, out, errs, tc.want, tc.output)
			}
			if after, err := os.ReadFile(filepath.Join(dir, "disk")); err != nil || !bytes.Equal(after, disk) {
				t.Errorf("%s changed the disk (%v)", tc.args, err)
			}
		})
	}
}
