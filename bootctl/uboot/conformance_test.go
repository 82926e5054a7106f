// SPDX-License-Identifier: Apache-2.0

package uboot_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/updaterd/updaterd/bootctl/uboot"
)

// The tools of others that this package must agree with. Without them the
// project's own tests prove nothing, so their absence is a failure.
var packages = map[string]string{"fw_printenv": "libubootenv-tool", "fw_setenv": "libubootenv-tool", "mkenvimage": "u-boot-tools"}

func run(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%v: install the package %s", err, packages[name])
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, errs.String())
	}
	return out.String()
}

// configFile writes a fw_env.config.
func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fw_env.config")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func printenv(t *testing.T, config string) map[string]string {
	t.Helper()
	vars := map[string]string{}
	for line := range strings.Lines(run(t, "", "fw_printenv", "-c", config)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		vars[name] = value
	}
	return vars
}

// randomVars are names and values as boards have them, and stranger ones. Two
// things are left out: a value that ends in a backslash, which mkenvimage's input
// cannot express, and the empty environment, for which fw_setenv writes one NUL
// and then whatever was in its memory, so that U-Boot would read that.
func randomVars(r *rand.Rand) map[string]string {
	const names = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_-.+:/"
	vars := map[string]string{}
	for range 1 + r.IntN(40) {
		name := make([]byte, 1+r.IntN(20))
		for i := range name {
			name[i] = names[r.IntN(len(names))]
		}
		value := make([]byte, 1+r.IntN(120))
		for i := range value {
			value[i] = ' ' + byte(r.IntN('~'-' '+1))
		}
		if value[len(value)-1] == '\\' {
			value = append(value, '.')
		}
		vars[string(name)] = string(value)
	}
	delete(vars, ".flags") // the types of variables, which fw_setenv obeys
	vars["last"] = "1"
	return vars
}

func script(vars map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		fmt.Fprintf(&b, "%s=%s\n", name, vars[name])
	}
	return b.String()
}

// replace makes vars the whole environment, in one change.
func replace(t *testing.T, c *uboot.Control, both bool, vars map[string]string) {
	t.Helper()
	err := c.Update(both, func(e *uboot.Env) error {
		for _, name := range e.Names() {
			if err := e.Set(name, ""); err != nil {
				return err
			}
		}
		for _, name := range slices.Sorted(maps.Keys(vars)) {
			if err := e.Set(name, vars[name]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What one writes the other reads, turn by turn in one place: mkenvimage makes
// the first environment, then we and fw_setenv take turns.
func TestConformance(t *testing.T) {
	const rounds = 100
	for _, tc := range []struct {
		name   string
		copies int
	}{{"redundant", 2}, {"single", 1}} {
		t.Run(tc.name, func(t *testing.T) {
			config := disk(t)[:tc.copies]
			path := configFile(t, config.String())
			c, err := uboot.Open(uboot.Options{Config: path})
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(1, uint64(tc.copies)))
			for i := range rounds {
				want := randomVars(r)
				switch turn := r.IntN(8); {
				case i == 0 || turn == 0:
					mkenvimage(t, config, want)
				case turn < 4:
					replace(t, c, turn == 1, want)
				default:
					setenv(t, path, want)
				}
				env, err := c.Env()
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, env.Vars()); diff != "" {
					t.Fatalf("round %d, read by us: %s", i, diff)
				}
				if diff := cmp.Diff(want, printenv(t, path)); diff != "" {
					t.Fatalf("round %d, read by fw_printenv: %s", i, diff)
				}
			}
		})
	}
}

func mkenvimage(t *testing.T, config uboot.Config, vars map[string]string) {
	t.Helper()
	args := []string{"-s", fmt.Sprint(config[0].Size), "-o", "-"}
	if len(config) == 2 {
		args = append(args, "-r")
	}
	image := run(t, script(vars), "mkenvimage", append(args, "-")...)
	for _, l := range config {
		f, err := os.OpenFile(l.Path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte(image), l.Offset); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// setenv makes vars the whole environment, with one run of fw_setenv.
func setenv(t *testing.T, config string, vars map[string]string) {
	t.Helper()
	var b strings.Builder
	for name := range printenv(t, config) {
		if vars[name] == "" {
			fmt.Fprintf(&b, "%s=\n", name)
		}
	}
	run(t, b.String()+script(vars), "fw_setenv", "-c", config, "-s", "-")
}

// Every form of fw_env.config that we accept leads to the bytes that the tools find.
func TestConfigConformance(t *testing.T) {
	for name, format := range map[string]string{
		"hexadecimal":      "%[1]s 0x1000 0x2000\n%[1]s 0x8000 0x2000\n",
		"decimal offset":   "%[1]s 4096 0x2000\n%[1]s 32768 0x2000\n",
		"octal offset":     "%[1]s 010000 0x2000\n%[1]s 0100000 0x2000\n",
		"size without 0x":  "%[1]s 0x1000 2000\n%[1]s 0x8000 2000 200 10\n",
		"tabs, comments":   "# x\n\n%[1]s\t0x1000\t0x2000 # first\n # %[1]s 0 0x2000\n  %[1]s 0x8000 0x2000 0x200 0x10 1\n",
		"carriage returns": "%[1]s 0x1000 0x2000\r\n%[1]s 0x8000 0x2000\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			disk := disk(t)
			path := configFile(t, fmt.Sprintf(format, disk[0].Path))
			c, err := uboot.Open(uboot.Options{Config: path})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 4 { // both copies are in force in turn
				want := map[string]string{"round": fmt.Sprint(i)}
				if i%2 == 0 {
					replace(t, c, false, want)
				} else {
					setenv(t, path, want)
				}
				env, err := c.Env()
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, env.Vars()) + cmp.Diff(want, printenv(t, path)); diff != "" {
					t.Fatal(diff)
				}
			}
		})
	}
}

// The lock file is shared with fw_setenv: of many changes made at the same time
// none is lost.
func TestLockSharedWithSetenv(t *testing.T) {
	const rounds = 300
	path := configFile(t, disk(t).String())
	c, err := uboot.Open(uboot.Options{Config: path})
	if err != nil {
		t.Fatal(err)
	}
	want := printenv(t, path)
	var wg sync.WaitGroup
	wg.Go(func() {
		script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do fw_setenv -c %s t$i 1 || exit 1; i=$((i+1)); done", rounds, path)
		if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
			t.Errorf("fw_setenv: %v\n%s", err, out)
		}
	})
	wg.Go(func() {
		for i := range rounds {
			if err := c.Update(i%5 == 0, func(e *uboot.Env) error { return e.Set(fmt.Sprintf("o%d", i), "1") }); err != nil {
				t.Error(err)
				return
			}
		}
	})
	wg.Wait()
	for i := range rounds {
		want[fmt.Sprintf("o%d", i)], want[fmt.Sprintf("t%d", i)] = "1", "1"
	}
	if diff := cmp.Diff(want, printenv(t, path)); diff != "" {
		t.Errorf("lost: %s", diff)
	}
}
