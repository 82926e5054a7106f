// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/bundle/seal"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/check"
	"github.com/updaterd/updaterd/updaterd/internal/config"
)

// fitting is a device, in a directory, that fits its configuration but for the
// slot it runs from.
func fitting(t *testing.T) (dir string, c *config.Config) {
	t.Helper()
	dir = t.TempDir()
	_, pub, err := sign.GenerateKey(sign.Ed25519, nil)
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "keys/a.pub", pub)
	putEnvironment(t, dir)
	put(t, dir, "fw_env.config", fmt.Appendf(nil, "%s/env 0x0 0x1000\n%s/env 0x1000 0x1000\n", dir, dir))
	put(t, dir, "rootfs_a", make([]byte, 8192))
	put(t, dir, "rootfs_b", make([]byte, 8192))
	put(t, dir, "test", nil)
	if err := os.Chmod(filepath.Join(dir, "test"), 0o755); err != nil {
		t.Fatal(err)
	}
	c = config.Defaults()
	c.Keyring, c.DataDir = filepath.Join(dir, "keys"), filepath.Join(dir, "data")
	c.Boot.FwEnvConfig = filepath.Join(dir, "fw_env.config")
	c.Slots = map[string]config.Slot{"rootfs.a": {Device: filepath.Join(dir, "rootfs_a")}, "rootfs.b": {Device: filepath.Join(dir, "rootfs_b")}}
	c.Health.Commands = []config.Command{{Name: "test", Argv: []string{filepath.Join(dir, "test")}}}
	c.Watchdog.Device = "/dev/null" // a character device
	return dir, c
}

// putEnvironment writes the boot environment of a confirmed system in slot a, with changes.
func putEnvironment(t *testing.T, dir string, changes ...string) {
	t.Helper()
	vars := []string{"boot_slot=a", "boot_bad=", "upgrade_available=0", "bootcount=0", "bootlimit=3", "altbootcmd=run fallback"}
	for _, change := range changes {
		name, _, _ := strings.Cut(change, "=")
		vars[slices.IndexFunc(vars, func(v string) bool { return strings.HasPrefix(v, name+"=") })] = change
	}
	env, err := uboot.Parse([]byte(strings.Join(vars, "\x00") + "\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	var disk []byte
	for flag := range byte(2) {
		image, err := uboot.EncodeCopy(env, flag, 0x1000, true)
		if err != nil {
			t.Fatal(err)
		}
		disk = append(disk, image...)
	}
	put(t, dir, "env", disk)
}

func put(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestKernelThatStaysAfterAPanic(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{"0\n": "", "5\n": "starts anew after 5 s", "-1\n": "starts anew at once"} {
		put(t, dir, "panic", []byte(text))
		got, err := checkPanic(filepath.Join(dir, "panic"))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("checkPanic of %q = %q, %v; want %q", text, got, err, want)
		}
	}
}

// elsewhere is a root file system that is not the one of the test's files.
const elsewhere = "/proc"

// policyIn writes a policy of one rule, with that one signer.
func policyIn(t *testing.T, dir, rule, file string) string {
	t.Helper()
	put(t, dir, "policy.toml", fmt.Appendf(nil, "[signers.s]\nfile = %q\n[[rule]]\n%ssigners = [\"s\"]\nthreshold = 1\n", file, rule))
	return filepath.Join(dir, "policy.toml")
}

// identityIn writes an identity, for some to read.
func identityIn(t *testing.T, dir string, mode os.FileMode) string {
	t.Helper()
	id, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	text, err := seal.MarshalIdentity(id)
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "identity", text)
	path := filepath.Join(dir, "identity")
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEachCheckFindsItsFault(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, dir string, c *config.Config)
		check string
		want  string
	}{
		"nothing":       {func(*testing.T, string, *config.Config) {}, "", ""},
		"no keyring":    {func(_ *testing.T, _ string, c *config.Config) { c.Keyring += "x" }, "keyring", "no such file"},
		"empty keyring": {func(t *testing.T, dir string, _ *config.Config) { remove(t, dir, "keys/a.pub") }, "keyring", "no *.pem or *.pub"},
		"no key":        {func(t *testing.T, dir string, _ *config.Config) { put(t, dir, "keys/b.pem", []byte("x")) }, "keyring", "b.pem"},
		"example's key": {func(t *testing.T, dir string, _ *config.Config) {
			b, err := os.ReadFile(filepath.Join(dir, "keys/a.pub"))
			if err != nil {
				t.Fatal(err)
			}
			put(t, dir, "keys/example.pub", b)
		}, "keyring", "is an example's key"},
		"keys that ended": {func(t *testing.T, dir string, c *config.Config) {
			put(t, dir, "policy.toml", []byte("[signers.s]\nfile = \"a.pub\"\nnot_after = 2001-01-01T00:00:00Z\n[[rule]]\nsigners = [\"s\"]\nthreshold = 1\n"))
			c.Policy = dir + "/policy.toml"
		}, "ends of keys", "since 2001-01-01 nobody"},
		"keys that end soon": {func(t *testing.T, dir string, c *config.Config) {
			put(t, dir, "policy.toml", fmt.Appendf(nil, "[signers.s]\nfile = \"a.pub\"\nnot_after = %s\n[[rule]]\nsigners = [\"s\"]\nthreshold = 1\n", time.Now().AddDate(0, 1, 0).UTC().Format(time.RFC3339)))
			c.Policy = dir + "/policy.toml"
		}, "ends of keys", "nobody's signature is believed"},
		"too few keys": {func(_ *testing.T, _ string, c *config.Config) { c.Threshold = 2 }, "keyring", "1 different keys, and 2"},
		"no policy":    {func(_ *testing.T, dir string, c *config.Config) { c.Policy = dir + "/none" }, "keyring", "no such file"},
		"policy of strangers": {func(t *testing.T, dir string, c *config.Config) {
			c.Policy = policyIn(t, dir, "", "b.pub")
		}, "keyring", `has no file "b.pub"`},
		"policy for bootloaders": {func(t *testing.T, dir string, c *config.Config) {
			c.Policy = policyIn(t, dir, "classes = [\"bootloader\"]\n", "a.pub")
		}, "keyring", `no rule for images of class "rootfs"`},
		"policy without channel metadata": {func(t *testing.T, dir string, c *config.Config) {
			c.Policy = policyIn(t, dir, "classes = [\"rootfs\"]\n", "a.pub")
			c.Channel.Name, c.Channel.URL = "stable", "https://updates.example/stable.channel"
		}, "keyring", `no rule for class "channel.metadata": the metadata of channel stable are refused`},
		"good policy":    {func(t *testing.T, dir string, c *config.Config) { c.Policy = policyIn(t, dir, "", "a.pub") }, "", ""},
		"no identity":    {func(_ *testing.T, dir string, c *config.Config) { c.Identity = dir + "/none" }, "identity", "no such file"},
		"open identity":  {func(t *testing.T, dir string, c *config.Config) { c.Identity = identityIn(t, dir, 0o644) }, "identity", "chmod 600"},
		"good identity":  {func(t *testing.T, dir string, c *config.Config) { c.Identity = identityIn(t, dir, 0o600) }, "", ""},
		"no env config":  {func(t *testing.T, dir string, _ *config.Config) { remove(t, dir, "fw_env.config") }, "boot environment", "no such file"},
		"bad env config": {func(t *testing.T, dir string, _ *config.Config) { put(t, dir, "fw_env.config", []byte("env\n")) }, "boot environment", "line 1"},
		"no env":         {func(t *testing.T, dir string, _ *config.Config) { put(t, dir, "env", make([]byte, 0x2000)) }, "boot environment", "nothing was ever stored"},
		"wrong scheme":   {func(_ *testing.T, _ string, c *config.Config) { c.Boot.Scheme = "bootorder" }, "boot environment", "as in scheme bootcount"},
		"no defaults":    {func(_ *testing.T, dir string, c *config.Config) { c.Boot.Defaults = dir + "/none" }, "boot environment", "no such file"},
		"poor defaults": {func(t *testing.T, dir string, c *config.Config) {
			put(t, dir, "defaults", []byte("boot_slot=a\nbootlimit=3\n"))
			c.Boot.Defaults = dir + "/defaults"
		}, "boot environment", "altbootcmd is not set"},
		"one copy gone": {func(t *testing.T, dir string, _ *config.Config) {
			path := filepath.Join(dir, "env")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			clear(b[0x1000:])
			put(t, dir, "env", b)
		}, "boot environment", "one of the two copies"},
		"slot missing":       {func(t *testing.T, dir string, _ *config.Config) { remove(t, dir, "rootfs_b") }, "slot rootfs.b", "no such file"},
		"slot empty":         {func(t *testing.T, dir string, _ *config.Config) { put(t, dir, "rootfs_b", nil) }, "slot rootfs.b", "empty"},
		"slots of two sizes": {func(t *testing.T, dir string, _ *config.Config) { put(t, dir, "rootfs_b", make([]byte, 4096)) }, "slot rootfs.b", "fewer than the other slot"},
		"no room to store":   {func(_ *testing.T, _ string, c *config.Config) { c.Download.StoreBudget = 1 << 60 }, "data directory", "is streamed"},
		"no migration hook":  {func(_ *testing.T, dir string, c *config.Config) { c.Migrate.Argv = []string{dir + "/none"} }, "migration hook", "no such file"},
		"hook is no program": {func(_ *testing.T, dir string, c *config.Config) { c.Migrate.Argv = []string{dir + "/env"} }, "migration hook", "cannot be executed"},
		"slot is a console":  {func(_ *testing.T, _ string, c *config.Config) { c.Slots["rootfs.b"] = config.Slot{Device: "/dev/null"} }, "slot rootfs.b", "neither a block device"},
		"switch of no eMMC": {func(t *testing.T, dir string, c *config.Config) {
			for _, slot := range []string{"a", "b"} {
				put(t, dir, "boot_"+slot, []byte("x"))
				c.Slots["boot."+slot] = config.Slot{Device: filepath.Join(dir, "boot_"+slot), Type: config.TypeEMMCBoot}
			}
		}, "switch of class boot", "is not a boot partition of an eMMC"},
		"data on a file":    {func(t *testing.T, dir string, _ *config.Config) { put(t, dir, "data", nil) }, "data directory", "no directory"},
		"data nowhere":      {func(_ *testing.T, dir string, c *config.Config) { c.DataDir = dir + "/a/b" }, "data directory", "no such file"},
		"data on no medium": {func(_ *testing.T, _ string, c *config.Config) { c.DataDir = "/sys/kernel" }, "data directory", ""},
		"no room": {func(_ *testing.T, _ string, c *config.Config) {
			c.Download.Mode, c.Download.StoreBudget = "store", 1<<60
		}, "data directory", "bytes free"},
		"floors with the data":   {func(_ *testing.T, dir string, c *config.Config) { c.FloorStore = dir + "/persist" }, "floor store", "file system of data_dir"},
		"floors nowhere":         {func(_ *testing.T, dir string, c *config.Config) { c.FloorStore = dir + "/a/b" }, "floor store", "no such file"},
		"floors on a file":       {func(_ *testing.T, dir string, c *config.Config) { c.FloorStore = dir + "/env" }, "floor store", "no directory"},
		"no authority":           {func(_ *testing.T, dir string, c *config.Config) { c.Download.CAFile = dir + "/test" }, "certificates", "no PEM certificate"},
		"units without systemd":  {func(_ *testing.T, _ string, c *config.Config) { c.Health.Units = []string{"a.service"} }, "health units", "no systemd"},
		"target without systemd": {func(_ *testing.T, _ string, c *config.Config) { c.Health.BootComplete = true }, "health units", "no systemd"},
		"no health command":      {func(_ *testing.T, _ string, c *config.Config) { c.Health.Commands[0].Argv[0] += "x" }, "health commands", "no such file"},
		"command is no file":     {func(_ *testing.T, dir string, c *config.Config) { c.Health.Commands[0].Argv[0] = dir }, "health commands", "cannot be executed"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, c := fitting(t)
			tc.spoil(t, dir, c)
			before := listing(t, dir)
			failed := map[string]string{}
			for _, r := range check.Run(checksOfConfig(c, elsewhere)) {
				if r.Text == "" || (r.Level != check.OK) != (r.Cure != "") {
					t.Errorf("%+v: no text, or no cure, or one for nothing", r)
				}
				if r.Level == check.OK || r.Name == "booted slot" || r.Name == "kernel panic" || r.Name == "canary" { // this machine's
					continue
				}
				if r.Name == "ends of keys" && strings.Contains(r.Cure, "\"keyring\" first") {
					continue
				}
				failed[r.Name] = r.Text
			}
			if tc.check == "" && len(failed) > 0 || tc.check != "" && (len(failed) != 1 || !strings.Contains(failed[tc.check], tc.want) || failed[tc.check] == "") {
				t.Errorf("failed: %q, want %q with %q alone", failed, tc.check, tc.want)
			}
			if after := listing(t, dir); after != before {
				t.Errorf("the checks changed something:\n%s\n%s", before, after)
			}
		})
	}
}

func TestSlotsThatAreOne(t *testing.T) {
	dir, c := fitting(t)
	remove(t, dir, "rootfs_b")
	if err := os.Symlink("rootfs_a", filepath.Join(dir, "rootfs_b")); err != nil {
		t.Fatal(err)
	}
	for _, slot := range []bootctl.Slot{bootctl.SlotA, bootctl.SlotB} {
		if found, err := checkSlot(c, "rootfs", slot); err == nil || !strings.Contains(err.Error(), "another name") {
			t.Errorf("slot %s: %q, %v", slot, found, err)
		}
	}
}

func TestDataOnTheRootFileSystem(t *testing.T) {
	dir, c := fitting(t)
	if found, err := checkData(c, dir); err == nil || !strings.Contains(err.Error(), "root file system") {
		t.Errorf("%q, %v", found, err)
	}
	c.FloorStore = filepath.Join(dir, "persist")
	if found, err := checkFloorStore(c, dir); err == nil || !strings.Contains(err.Error(), "root file system") {
		t.Errorf("%q, %v", found, err)
	}
}

func TestCanary(t *testing.T) {
	for _, c := range []struct {
		status bootctl.Status
		there  string
		want   string // "": the proof is there
	}{
		{bootctl.Status{EnvID: "factory"}, "factory", ""},
		{bootctl.Status{Proven: true}, "", ""},
		{bootctl.Status{}, "", "has no env_id yet"},
		{bootctl.Status{EnvID: "factory"}, "", "has no updaterd.env_id"},
		{bootctl.Status{EnvID: "factory"}, "other", `the kernel command line "other"`},
	} {
		found, err := canary(c.status, c.there)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("canary(%+v, %q) = %q, %v; want %q", c.status, c.there, found, err, c.want)
		}
	}
}

func TestChecksArePrinted(t *testing.T) {
	list := []check.Check{
		{Name: "one", Look: func() (string, error) { return "there", nil }},
		{Name: "two", Look: func() (string, error) { return "", check.Fault("mend it", "broken") }},
		{Name: "three", Look: func() (string, error) { return "", check.Doubt("look at it", "odd") }},
	}
	for _, tc := range []struct {
		list   []check.Check
		asJSON bool
		code   int
		want   string
	}{
		{list, false, exitUnfit, "ok    one: there\nFAIL  two: broken\n      cure: mend it\nwarn  three: odd\n      cure: look at it\n"},
		{[]check.Check{list[0], list[2]}, false, 0, "ok    one: there\nwarn  three: odd\n      cure: look at it\n"},
		{list[1:], true, exitUnfit, `{
  "config": "file",
  "failed": 1,
  "warnings": 1,
  "checks": [
    {
      "name": "two",
      "level": "fail",
      "text": "broken",
      "cure": "mend it"
    },
    {
      "name": "three",
      "level": "warn",
      "text": "odd",
      "cure": "look at it"
    }
  ]
}
`},
	} {
		var out, errs bytes.Buffer
		code := checkConfig("file", tc.list, tc.asJSON, &out, &errs)
		if code != tc.code || out.String() != tc.want || (errs.Len() > 0) != (code > 0) {
			t.Errorf("code %d, want %d; %s\n%swant\n%s", code, tc.code, &errs, &out, tc.want)
		}
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// listing is every file below dir with its size and time.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			fmt.Fprintln(&b, path, info.Size(), info.ModTime())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
