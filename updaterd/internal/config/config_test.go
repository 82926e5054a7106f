// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// minimal is the shortest file that is accepted.
const minimal = `compatible = "board"
[slots."rootfs.a"]
device = "/dev/a"
[slots."rootfs.b"]
device = "/dev/b"
`

// example is the default file's own example values over the defaults.
func example() *Config {
	c := Defaults()
	c.Compatible = "example-board"
	c.Slots = map[string]Slot{
		"rootfs.a": {Device: "/dev/disk/by-partlabel/rootfs_a"},
		"rootfs.b": {Device: "/dev/disk/by-partlabel/rootfs_b"},
	}
	return c
}

func TestDefaultFile(t *testing.T) {
	got, err := Parse(DefaultFile())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example(), got); diff != "" {
		t.Error(diff)
	}
}

var setting = regexp.MustCompile(`(?m)^#([a-z_]+ = |\[)`)

// TestDefaultFileTellsTheDefaults takes off the comment signs: every key must be
// there, and the value beside it must be the default.
func TestDefaultFileTellsTheDefaults(t *testing.T) {
	file := setting.ReplaceAll(DefaultFile(), []byte("$1"))
	got, err := Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	want := example()
	want.Slots["bootloader.a"] = Slot{Device: "/dev/mmcblk0boot0", Type: TypeEMMCBoot}
	want.Slots["bootloader.b"] = Slot{Device: "/dev/mmcblk0boot1", Type: TypeEMMCBoot}
	want.Slots["spl.a"] = Slot{Device: "/dev/mmcblk0", Type: TypeMBRSwitch, Partition: 1, Offset: 1 << 20, Size: 1 << 20}
	want.Slots["spl.b"] = Slot{Device: "/dev/mmcblk0", Type: TypeMBRSwitch, Partition: 1, Offset: 2 << 20, Size: 1 << 20}
	want.Health.Units = []string{}
	want.Health.Commands = []Command{{Name: "self-test", Argv: []string{"/usr/libexec/self-test", "--quick"}, Timeout: Duration(30 * time.Second)}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var raw map[string]any
	meta, err := toml.Decode(string(file), &raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, known := range knownKeys(reflect.TypeFor[Config]()) {
		found := false
		for _, key := range meta.Keys() {
			found = found || len(key) >= len(known) && matches(known, key[:len(known)])
		}
		if !found {
			t.Errorf("updaterd.toml does not mention %s", known)
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "updaterd.toml")
	if _, err := Load(path); err == nil {
		t.Error("Load of a missing file succeeded")
	}
	if err := os.WriteFile(path, []byte(minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Device("rootfs", "b") != "/dev/b" || c.Device("rootfs", "c") != "" || !cmp.Equal(c.Classes(), []string{"rootfs"}) {
		t.Errorf("classes %v, slots %v", c.Classes(), c.Slots)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("#"), maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("Load of a large file = %v", err)
	}
}

// half is one half of a region.
func half(slot, offset, size string, number int) string {
	return fmt.Sprintf("[slots.\"spl.%s\"]\ndevice = \"/dev/d\"\ntype = \"gpt-switch\"\noffset = %q\nsize = %q\npartition = %d\n", slot, offset, size, number)
}

func TestProblems(t *testing.T) {
	for _, tc := range []struct {
		name, file string // file is appended to minimal, unless it begins with "="
		want       []string
	}{
		{"nothing", "=", []string{"compatible: is missing", "slots: there are none"}},
		{"not TOML", "\n?", []string{"line 7: "}},
		{"unknown key", "devcie = \"x\"", []string{`line 6: unknown key slots."rootfs.b".devcie; did you mean slots."rootfs.b".device?`}},
		{"unknown at the top", "=compatibel = 1\n" + minimal, []string{"line 1: unknown key compatibel; did you mean compatible?"}},
		{"unknown table", "[helth]\nunits = []", []string{"line 6: unknown key helth; did you mean health?", "line 7: unknown key helth.units; did you mean health.units?"}},
		{"key in the wrong table", "[download]\ndeadline = \"1m\"", []string{"line 7: unknown key download.deadline; did you mean health.deadline?"}},
		{"nothing like it", "[download]\nfrobnicate = 1", []string{"line 7: unknown key download.frobnicate"}},
		{"another case", "[download]\nMode = \"store\"", []string{"line 7: unknown key download.Mode; did you mean download.mode?"}},
		{"unknown in a command", "[[health.commands]]\nname = \"a\"\nargv = [\"/bin/true\"]\ntime_out = \"1s\"", []string{"line 9: unknown key health.commands.time_out; did you mean health.commands.timeout?"}},
		{"slot without quotes", "[slots.boot.a]\ndevice = \"/dev/c\"", []string{`unknown key slots.boot.a; put the slot's name into quotes: [slots."boot.a"]`}},
		{"wrong type", "[health]\nunits = \"app.service\"", []string{"line 7: health.units: is of type string; it must be a list"}},
		{"text for a number", "=threshold = \"2\"\n" + minimal, []string{"line 1: threshold: is of type string; it must be a whole number"}},
		{"value for a table", "=health = 1\n" + minimal, []string{"line 1: health: must be a table"}},
		{"twice", "[boot]\n[boot]", []string{"line 7: "}},
		{"time without a unit", "[health]\ndeadline = 300", []string{"line 7: ", `"300" is not a length of time; write a number and a unit`}},
		{"negative time", "[health]\ndeadline = \"-5m\"", []string{"is not a length of time"}},
		{"size in words", "[download]\nstore_budget = \"lots\"", []string{"line 7: ", `"lots" is not a size`}},
		{"negative size", "[download]\nbyte_budget = -1", []string{`"-1" is not a size`}},
		{"mode", "[download]\nmode = \"fast\"", []string{`line 7: download.mode: is "fast"; it must be "auto" or "store" or "stream"`}},
		{"channel without a name", "[channel]\nurl = \"https://h/c\"", []string{`channel.name: is ""; it must be what the channel's metadata state`}},
		{"channel without a URL", "[channel]\nname = \"stable\"", []string{`channel.url: "" is not the http or https URL`}},
		{"channel in a file", "[channel]\nname = \"stable\"\nurl = \"file:///c\"", []string{`channel.url: "file:///c" is not the http or https URL`}},
		{"channel's name", "[channel]\nname = \"Stable\"\nurl = \"http://h/c\"", []string{`channel.name: is "Stable"`}},
		{"channel's interval", "[channel]\ninterval = \"10s\"", []string{`channel.interval: is 10s; it must be between 1m and 720h, or 0`}},
		{"expired", "[channel]\nexpired = \"ignore\"", []string{`channel.expired: is "ignore"; it must be "warn" or "refuse"`}},
		{"migration by a relative path", "[migrate]\nargv = [\"migrate\"]", []string{`migrate.argv: ["migrate"] does not begin with the absolute path of a program`}},
		{"migration without time", "[migrate]\ntimeout = \"0s\"", []string{"migrate.timeout: is 0s; it must be between 1s and 24h"}},
		{"fallback", "[download]\nfallback = \"\"", []string{`download.fallback: is ""`}},
		{"scheme", "[boot]\nscheme = \"grub\"", []string{`boot.scheme: is "grub"; it must be "bootcount" or "bootorder"`}},
		{"slot names", "[boot]\nslot_names = [\"A\"]", []string{`boot.slot_names: is ["A"]; it must be two different names`}},
		{"slot names alike", "[boot]\nslot_names = [\"A\", \"A\"]", []string{`boot.slot_names: is ["A" "A"]; it must be two different names`}},
		{"slot name with a blank", "[boot]\nslot_names = [\"system 0\", \"B\"]", []string{`boot.slot_names: is ["system 0" "B"]; it must be two different names`}},
		{"several at once", "[trial]\nmax_attempts = 0\n[watchdog]\ntimeout = \"1500ms\"\ndevice = \"watchdog\"", []string{
			"line 7: trial.max_attempts: is 0", "line 9: watchdog.timeout: is 1.5s", `line 10: watchdog.device: "watchdog" is not an absolute path`}},
		{"threshold", "=threshold = 0\n" + minimal, []string{"line 1: threshold: is 0"}},
		{"group with a space", "[device]\ngroups = [\"my lab\"]\n", []string{`groups: "my lab" has other characters`}},
		{"floors with the data", "=floor_store = \"/data/updaterd/\"\n" + minimal, []string{`line 1: floor_store: is data_dir`}},
		{"relative directory", "=data_dir = \"data\"\n" + minimal, []string{`line 1: data_dir: "data" is not an absolute path`}},
		{"empty directory", "=keyring = \"\"\n" + minimal, []string{"line 1: keyring: is empty"}},
		{"compatible with a space", "=" + strings.Replace(minimal, "board", "my board", 1), []string{`line 1: compatible: "my board" has other characters`}},
		{"half a pair", "[slots.\"boot.a\"]\ndevice = \"/dev/c\"", []string{`line 6: slots."boot.a": has no counterpart; write [slots."boot.b"] too`}},
		{"slot c", "[slots.\"rootfs.c\"]\ndevice = \"/dev/c\"", []string{`line 6: slots."rootfs.c": is not the name of a slot`}},
		{"slot without a device", "=" + strings.Replace(minimal, `device = "/dev/b"`, "", 1), []string{`slots."rootfs.b".device: is empty`}},
		{"one device for two slots", "=" + strings.Replace(minimal, "/dev/b", "/dev//a", 1), []string{`slots."rootfs.b".device: /dev//a is also the device of rootfs.a`}},
		{"unknown type", "[slots.\"boot.a\"]\ndevice = \"/dev/c\"\ntype = \"emmc\"\n[slots.\"boot.b\"]\ndevice = \"/dev/d\"\ntype = \"emmc\"", []string{
			`line 8: slots."boot.a".type: is "emmc"; it must be "partition" or "emmc-boot" or "fallback-copy" or "mbr-switch" or "gpt-switch"`}},
		{"region", half("a", "1MiB", "2MiB", 1) + half("b", "2MiB", "2MiB", 1), []string{`slots."spl.a".offset: is within spl.b`, `slots."spl.b".offset: is within spl.a`}},
		{"regions of two classes", half("a", "1MiB", "1MiB", 1) + half("b", "2MiB", "1MiB", 1) +
			strings.ReplaceAll(half("a", "2560KiB", "1MiB", 2)+half("b", "4MiB", "1MiB", 2), "spl", "tpl"), []string{`slots."tpl.a".offset: is within spl.b`}},
		{"region of odd size", half("a", "1000", "2MiB", 1) + half("b", "4MiB", "1MiB", 0), []string{`slots."spl.a".offset: is 1000; it must be whole sectors`,
			`slots."spl.b".partition: is 0`, "has another device, size or partition than spl.b"}},
		{"region of a partition", "offset = \"1MiB\"", []string{`offset, size and partition are for the types mbr-switch and gpt-switch`}},
		{"two types", "[slots.\"boot.a\"]\ndevice = \"/dev/c\"\ntype = \"emmc-boot\"\n[slots.\"boot.b\"]\ndevice = \"/dev/d\"", []string{
			`line 8: slots."boot.a".type: is "emmc-boot", and that of boot.b is ""`}},
		{"type of rootfs", "type = \"emmc-boot\"", []string{`slots."rootfs.b".type: is "emmc-boot"; the class rootfs is chosen by the bootloader`}},
		{"no rootfs", "=" + strings.ReplaceAll(minimal, "rootfs", "boot"), []string{"the class rootfs is missing"}},
		{"unit without a suffix", "[health]\nunits = [\"app\"]", []string{`line 7: health.units: "app" is not the full name`}},
		{"deadline too short", "[health]\ndeadline = \"10s\"", []string{"line 7: health.deadline: 10s is not longer than min_uptime, 10s"}},
		{"commands", "[[health.commands]]\nname = \"a\"\nargv = [\"true\"]\n[[health.commands]]\nname = \"a\"\nargv = [\"/bin/true\"]\ntimeout = \"1h\"\n[[health.commands]]\nargv = []", []string{
			`health.commands: number 1 ("a") needs argv`, `number 2 ("a") has the name of another one`, "timeout of 1h0m0s, which is not shorter", `number 3 ("") needs a name`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file, whole := strings.CutPrefix(tc.file, "=")
			if !whole {
				file = minimal + tc.file
			}
			c, err := Parse([]byte(file))
			if err == nil || c != nil {
				t.Fatalf("Parse = %+v, %v; want an error", c, err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Parse = %v\nwant: %s", err, want)
				}
			}
		})
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "7": 7, "7B": 7, "3kB": 3000, "3KiB": 3 << 10, "64MiB": 64 << 20, "64 MiB": 64 << 20, "2MB": 2e6, "1GiB": 1 << 30, "1TiB": 1 << 40,
	} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q = %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "B", "MiB", "1.5MiB", "1M", "1mib", "-1", "1 Mi B", "9223372036854775808", "9223372036854775807kB", "0x10", "1_000"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil || s != 0 {
			t.Errorf("%q = %d, %v; want an error", text, s, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		want := Size(rapid.Int64Min(0).Draw(t, "size"))
		var got Size
		if err := got.UnmarshalText([]byte(want.String())); err != nil || got != want {
			t.Fatalf("%d is written %q and read %d, %v", want, want, got, err)
		}
	})
}

// FuzzParse: what is accepted can be written and read again and is the same;
// what is not, yields nothing.
func FuzzParse(f *testing.F) {
	f.Add(DefaultFile())
	f.Add(setting.ReplaceAll(DefaultFile(), []byte("$1")))
	f.Add([]byte(minimal))
	f.Add([]byte("[slots.\"a\nb\"]\n=\n[[x]]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			if c != nil || err.Error() == "" {
				t.Fatalf("Parse = %v, %q", c, err)
			}
			return
		}
		var again bytes.Buffer
		if err := toml.NewEncoder(&again).Encode(c); err != nil {
			t.Fatal(err)
		}
		c2, err := Parse(again.Bytes())
		if err != nil {
			t.Fatalf("wrote what cannot be read: %v\n%s", err, again.Bytes())
		}
		// An empty list and none are the same to everybody.
		if diff := cmp.Diff(c, c2, cmp.Transformer("list", func(s []string) string { return strings.Join(s, "\x00") }),
			cmp.Transformer("commands", func(s []Command) map[int]Command {
				m := map[int]Command{}
				for i, c := range s {
					m[i] = c
				}
				return m
			})); diff != "" {
			t.Fatal(diff)
		}
	})
}

// What a refused file says of the boot environment is found all the same.
func TestSalvage(t *testing.T) {
	for _, c := range []struct {
		name, file, env string
		names           []string
	}{
		{"a key that is unknown", "compatible = \"x\"\ncompatibel = \"x\"\n[boot]\nslot_names = [\"s0\", \"s1\"]\nfw_env_config = \"/boot/env\"\n", "/boot/env", []string{"s0", "s1"}},
		{"a value of the wrong type", "threshold = \"two\"\n[boot]\nfw_env_config = \"/boot/env\"\n", "/boot/env", nil},
		{"nothing of it", "[boot]\nfw_env_config = \"/boot/env\"\n[\n", Defaults().Boot.FwEnvConfig, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "updaterd.toml")
			if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(path); err == nil {
				t.Error("it was not refused")
			}
			got := Salvage(path)
			if got.Boot.FwEnvConfig != c.env || !slices.Equal(got.Boot.SlotNames, c.names) || got.Boot.Scheme != "" || got.Health.Deadline != Defaults().Health.Deadline {
				t.Errorf("got %+v, deadline %v", got.Boot, got.Health.Deadline.Std())
			}
		})
	}
	if got := Salvage(filepath.Join(t.TempDir(), "none")); got.Boot.FwEnvConfig != Defaults().Boot.FwEnvConfig {
		t.Errorf("without a file: %+v", got.Boot)
	}
}
