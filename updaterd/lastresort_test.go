// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/updaterd/internal/config"
)

// board is a configuration with a boot environment in a file, and a reboot
// command that only leaves a mark. It returns the mark's path.
func board(t *testing.T, vars map[string]string) (c *config.Config, rebooted string) {
	t.Helper()
	dir := t.TempDir()
	env := new(uboot.Env)
	for name, value := range vars {
		if err := env.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	image, err := uboot.EncodeCopy(env, 0, 4096, false)
	if err != nil {
		t.Fatal(err)
	}
	c, rebooted = config.Defaults(), filepath.Join(dir, "rebooted")
	c.Boot.FwEnvConfig = filepath.Join(dir, "fw_env.config")
	for path, content := range map[string]string{
		filepath.Join(dir, "env"):    string(image),
		c.Boot.FwEnvConfig:           fmt.Sprintf("%s 0 0x1000\n", filepath.Join(dir, "env")),
		filepath.Join(dir, "reboot"): "#!/bin/sh\n: >" + rebooted + "\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir) // nothing else is found by name
	return c, rebooted
}

func trial(bad, upgrade string) map[string]string {
	return map[string]string{"boot_slot": "b", "boot_bad": bad, "upgrade_available": upgrade, "bootcount": "1", "bootlimit": "3", "altbootcmd": "run fallback"}
}

func order(list, left, upgrade string) map[string]string {
	return map[string]string{"BOOT_ORDER": list, "BOOT_A_LEFT": "3", "BOOT_B_LEFT": left, "upgrade_available": upgrade}
}

func TestLastResortEndsOnlyATrialThatIsOver(t *testing.T) {
	const past, future = config.Duration(time.Nanosecond), config.Duration(1000 * time.Hour)
	for _, c := range []struct {
		name     string
		vars     map[string]string
		claimed  bootctl.Slot
		deadline config.Duration
		want     bool
	}{
		{"order, the last start of a trial", order("B A", "0", "1"), "b", past, true},
		{"order, no trial", order("B A", "2", "0"), "b", past, false},
		{"order, a trial that fell back", order("B A", "0", "1"), "a", past, false},
		{"trial past its deadline", trial("", "1"), "b", past, true},
		{"trial of a system that is not told its slot", trial("", "1"), "", past, true},
		{"trial before it", trial("", "1"), "b", future, false},
		{"no trial", trial("", "0"), "b", past, false},
		{"trial with no way back", trial("a", "1"), "b", past, false},
		{"trial that the next start begins", trial("", "1"), "a", past, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf, rebooted := board(t, c.vars)
			conf.Boot.Scheme = "" // as with a configuration that cannot be read
			conf.Health.Deadline = c.deadline
			lastResort(t.Context(), conf, c.claimed, time.Millisecond, slog.New(slog.DiscardHandler))
			if _, err := os.Stat(rebooted); (err == nil) != c.want {
				t.Errorf("rebooted: %v, want %v", err == nil, c.want)
			}
		})
	}
	t.Run("a reboot that is refused at first", func(t *testing.T) {
		conf, rebooted := board(t, trial("", "1"))
		conf.Health.Deadline = past
		dir := filepath.Dir(rebooted)
		put(t, dir, "reboot", fmt.Appendf(nil, "#!/bin/sh\nif [ -e %[1]s/asked ]; then : >%[2]s; else : >%[1]s/asked; exit 1; fi\n", dir, rebooted))
		lastResort(t.Context(), conf, "b", time.Millisecond, slog.New(slog.DiscardHandler))
		if _, err := os.Stat(rebooted); err != nil {
			t.Error("it did not ask again")
		}
	})
	t.Run("a daemon that is told to end", func(t *testing.T) {
		conf, rebooted := board(t, trial("", "1"))
		conf.Health.Deadline = future
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		lastResort(ctx, conf, "b", time.Hour, slog.New(slog.DiscardHandler))
		if _, err := os.Stat(rebooted); err == nil {
			t.Error("it rebooted")
		}
	})
}

// A start that cannot be judged is acknowledged all the same, if nothing is on trial.
func TestLastResortAcknowledges(t *testing.T) {
	for _, c := range []struct {
		name    string
		vars    map[string]string
		claimed bootctl.Slot
		want    string
	}{
		{"a confirmed system", order("B A", "1", "0"), "b", "3"},
		{"a trial", order("B A", "1", "1"), "b", "1"},
		{"the other slot is first", order("B A", "1", "0"), "a", "1"},
		{"which slot is not known", order("B A", "1", "0"), "", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf, _ := board(t, c.vars)
			conf.Boot.Scheme = ""
			conf.Health.Deadline = config.Duration(1000 * time.Hour)
			lastResort(t.Context(), conf, c.claimed, time.Millisecond, slog.New(slog.DiscardHandler))
			control, err := openEnvironment(conf, c.claimed)
			if err != nil {
				t.Fatal(err)
			}
			env, err := control.Env()
			if err != nil {
				t.Fatal(err)
			}
			if got := env.Get("BOOT_B_LEFT"); got != c.want {
				t.Errorf("starts left: %s, want %s", got, c.want)
			}
		})
	}
}

// A trial that nobody judges is ended, also if the environment can be read only later.
func TestEndTrial(t *testing.T) {
	const past, future = config.Duration(-verdictTime), config.Duration(1000 * time.Hour)
	for _, c := range []struct {
		name     string
		upgrade  string
		deadline config.Duration
		judged   bool
		want     bool
	}{
		{"nobody judges", "1", past, false, true},
		{"the daemon runs", "1", past, true, false},
		{"no trial", "0", past, false, false},
		{"no trial, before the deadline", "0", future, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf, rebooted := board(t, trial("", c.upgrade))
			conf.Health.Deadline = c.deadline
			endTrial(t.Context(), conf, "b", time.Millisecond, func(context.Context) bool { return c.judged }, slog.New(slog.DiscardHandler))
			if _, err := os.Stat(rebooted); (err == nil) != c.want {
				t.Errorf("rebooted: %v, want %v", err == nil, c.want)
			}
		})
	}
	for _, c := range []struct {
		name    string
		upgrade string
		claimed bootctl.Slot
	}{{"the environment comes later, no trial", "0", "b"}, {"and the trial is that of the next start", "1", "a"}} {
		t.Run(c.name, func(t *testing.T) {
			conf, rebooted := board(t, trial("", c.upgrade))
			conf.Health.Deadline = future
			image := filepath.Join(filepath.Dir(rebooted), "env")
			if err := os.Rename(image, image+".later"); err != nil {
				t.Fatal(err)
			}
			said := logged(func(string) {
				if err := os.Rename(image+".later", image); err != nil {
					t.Error(err)
				}
			})
			endTrial(t.Context(), conf, c.claimed, time.Millisecond, func(context.Context) bool { t.Error("it asked for the daemon"); return true }, slog.New(slog.NewTextHandler(said, nil)))
			if _, err := os.Stat(rebooted); err == nil {
				t.Error("it rebooted")
			}
		})
	}
	t.Run("told to end", func(t *testing.T) {
		conf, rebooted := board(t, trial("", "1"))
		conf.Health.Deadline = future
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		endTrial(ctx, conf, "b", time.Millisecond, func(context.Context) bool { return false }, slog.New(slog.DiscardHandler))
		if _, err := os.Stat(rebooted); err == nil {
			t.Error("it rebooted")
		}
	})
	t.Run("by its command", func(t *testing.T) {
		conf, rebooted := board(t, trial("", "0"))
		dir := filepath.Dir(rebooted)
		put(t, dir, "updaterd.toml", fmt.Appendf(nil, "compatible = \"test\"\n[boot]\nfw_env_config = %q\n[slots.\"rootfs.a\"]\ndevice = \"/dev/a\"\n"+
			"[slots.\"rootfs.b\"]\ndevice = \"/dev/b\"\n", conf.Boot.FwEnvConfig))
		var said strings.Builder
		if code := run([]string{"end-trial", "--config", filepath.Join(dir, "updaterd.toml")}, &said, &said); code != 0 || said.String() != "" {
			t.Errorf("exit code %d; it said %s", code, &said)
		}
	})
}

// logged is a writer that calls a function for each message.
type logged func(string)

func (l logged) Write(b []byte) (int, error) { l(string(b)); return len(b), nil }
