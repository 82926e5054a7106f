// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// problem is a sentence about a key.
type problem struct {
	key  toml.Key
	text string
}

type problems []problem

func (p *problems) add(key toml.Key, format string, args ...any) {
	*p = append(*p, problem{key, fmt.Sprintf(format, args...)})
}

var (
	word        = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	bootName    = regexp.MustCompile(`^[A-Za-z0-9._-]{1,32}$`)
	channelName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	slotName    = regexp.MustCompile(`^([a-z0-9][a-z0-9_-]{0,31})\.([ab])$`)
	unitName    = regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]{1,240}\.(service|socket|target|mount|automount|swap|path|timer|slice|scope|device)$`)
)

func (c *Config) validate() problems {
	var p problems
	switch {
	case c.Compatible == "":
		p.add(toml.Key{"compatible"}, "is missing; write the name of the kind of device that this is, as the bundles for it say it")
	case !word.MatchString(c.Compatible):
		p.add(toml.Key{"compatible"}, "%q has other characters than letters, digits, dot, dash and underscore, or is longer than 64", c.Compatible)
	}
	p.path(c.DataDir, true, "data_dir")
	p.path(c.FloorStore, false, "floor_store")
	if c.FloorStore != "" && filepath.Clean(c.FloorStore) == filepath.Clean(c.DataDir) {
		p.add(toml.Key{"floor_store"}, "is data_dir; write a directory on another partition, or leave it out")
	}
	p.path(c.Keyring, true, "keyring")
	if c.Threshold < 1 || c.Threshold > 8 {
		p.add(toml.Key{"threshold"}, "is %d; it must be between 1 and 8 signatures", c.Threshold)
	}
	p.path(c.Policy, false, "policy")
	if c.Policy != "" && c.Threshold != 1 {
		p.add(toml.Key{"threshold"}, "is %d, and there is a policy; its rules say how many must have signed", c.Threshold)
	}
	p.path(c.Identity, false, "identity")
	p.path(c.Self.IDFile, false, "device", "id_file")
	for _, group := range c.Self.Groups {
		if !word.MatchString(group) {
			p.add(toml.Key{"device", "groups"}, "%q has other characters than letters, digits, dot, dash and underscore, or is longer than 64", group)
		}
	}
	p.oneOf(c.Boot.Scheme, []string{"bootcount", "bootorder"}, "boot", "scheme")
	if names := c.Boot.SlotNames; len(names) != 2 || names[0] == names[1] || !bootName.MatchString(names[0]) || !bootName.MatchString(names[1]) {
		p.add(toml.Key{"boot", "slot_names"}, "is %q; it must be two different names, of letters, digits, dot, dash and underscore, at most 32 each", names)
	}
	p.path(c.Boot.FwEnvConfig, true, "boot", "fw_env_config")
	p.path(c.Boot.Defaults, false, "boot", "defaults")
	p.slots(c)
	p.oneOf(c.Download.Mode, []string{"auto", "store", "stream"}, "download", "mode")
	p.oneOf(c.Download.Fallback, []string{"full", "wait", "fail"}, "download", "fallback")
	p.path(c.Download.CAFile, false, "download", "ca_file")
	p.channel(c.Channel)
	p.health(c)
	p.path(c.Watchdog.Device, false, "watchdog", "device")
	if t := c.Watchdog.Timeout.Std(); t < time.Second || t%time.Second != 0 || t > time.Hour {
		p.add(toml.Key{"watchdog", "timeout"}, "is %v; it must be a whole number of seconds, at most an hour", t)
	}
	if c.Trial.MaxAttempts < 1 || c.Trial.MaxAttempts > 9 {
		p.add(toml.Key{"trial", "max_attempts"}, "is %d; it must be between 1 and 9", c.Trial.MaxAttempts)
	}
	if argv := c.Migrate.Argv; len(argv) > 0 && !filepath.IsAbs(argv[0]) {
		p.add(toml.Key{"migrate", "argv"}, "%q does not begin with the absolute path of a program", argv)
	}
	if t := c.Migrate.Timeout.Std(); t < time.Second || t > 24*time.Hour {
		p.add(toml.Key{"migrate", "timeout"}, "is %v; it must be between 1s and 24h", t)
	}
	return p
}

func (p *problems) path(path string, required bool, key ...string) {
	switch {
	case path == "" && required:
		p.add(key, "is empty; write an absolute path")
	case path != "" && !filepath.IsAbs(path):
		p.add(key, "%q is not an absolute path", path)
	}
}

func (p *problems) oneOf(value string, allowed []string, key ...string) {
	if !slices.Contains(allowed, value) {
		p.add(key, "is %q; it must be \"%s\"", value, strings.Join(allowed, `" or "`))
	}
}

func (p *problems) slots(c *Config) {
	if len(c.Slots) == 0 {
		p.add(toml.Key{"slots"}, "there are none; write [slots.\"rootfs.a\"] and [slots.\"rootfs.b\"], each with its device")
		return
	}
	devices := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Slots)) {
		key := toml.Key{"slots", name}
		m := slotName.FindStringSubmatch(name)
		if m == nil {
			p.add(key, "is not the name of a slot; write class.a or class.b, such as \"rootfs.a\"")
			continue
		}
		class, slot := m[1], m[2]
		other := class + "." + strings.Trim("ab", slot)
		if _, there := c.Slots[other]; !there {
			p.add(key, "has no counterpart; write [slots.%q] too", other)
		}
		p.slotType(c, name, class, other)
		device := c.Slots[name].Device
		p.path(device, true, "slots", name, "device")
		if c.Region(class) {
			p.region(c, name, other)
			continue // the disk is that of both slots
		}
		if s := c.Slots[name]; s.Offset != 0 || s.Size != 0 || s.Partition != 0 {
			p.add(key, "offset, size and partition are for the types mbr-switch and gpt-switch")
		}
		if taken := devices[filepath.Clean(device)]; device != "" && taken != "" {
			p.add(append(key, "device"), "%s is also the device of %s; every slot needs its own", device, taken)
		}
		devices[filepath.Clean(device)] = name
	}
	if c.Device("rootfs", "a") == "" && c.Device("rootfs", "b") == "" {
		p.add(toml.Key{"slots"}, "the class rootfs is missing; its devices prove which slot is running")
	}
}

func (p *problems) region(c *Config, name, other string) {
	s, o := c.Slots[name], c.Slots[other]
	const sector = 512
	for _, n := range []struct {
		key   string
		value Size
	}{{"offset", s.Offset}, {"size", s.Size}} {
		if n.value < sector || n.value%sector != 0 {
			p.add(toml.Key{"slots", name, n.key}, "is %d; it must be whole sectors of %d bytes, and more than none", n.value, sector)
		}
	}
	if s.Partition < 1 || s.Partition > 128 {
		p.add(toml.Key{"slots", name, "partition"}, "is %d; it must be the number of the partition that is moved", s.Partition)
	}
	if s.Device != o.Device || s.Size != o.Size || s.Partition != o.Partition {
		p.add(toml.Key{"slots", name}, "has another device, size or partition than %s; write the same for both, and another offset", other)
	}
	for _, there := range slices.Sorted(maps.Keys(c.Slots)) {
		class, _, _ := strings.Cut(there, ".")
		t := c.Slots[there]
		if there != name && (there == other || there < name && c.Region(class) && t.Device == s.Device) && s.Offset < t.Offset+t.Size && t.Offset < s.Offset+s.Size {
			p.add(toml.Key{"slots", name, "offset"}, "is within %s; the two must not overlap", there)
		}
	}
}

func (p *problems) slotType(c *Config, name, class, other string) {
	kind := c.Slots[name].Type
	if kind != "" {
		p.oneOf(kind, slotTypes, "slots", name, "type")
	}
	key := toml.Key{"slots", name, "type"}
	if there, ok := c.Slots[other]; ok && there.Type != kind {
		p.add(key, "is %q, and that of %s is %q; write the same for both", kind, other, there.Type)
	}
	if class == "rootfs" && kind != "" && kind != TypePartition {
		p.add(key, "is %q; the class rootfs is chosen by the bootloader", kind)
	}
}

func (p *problems) channel(c Channel) {
	p.oneOf(c.Expired, []string{ExpiredWarn, ExpiredRefuse}, "channel", "expired")
	if i := c.Interval.Std(); i != 0 && i < time.Minute || i > 30*24*time.Hour {
		p.add(toml.Key{"channel", "interval"}, "is %v; it must be between 1m and 720h, or 0 to look only when asked", i)
	}
	if c.URL == "" && c.Name == "" {
		return
	}
	if !channelName.MatchString(c.Name) {
		p.add(toml.Key{"channel", "name"}, "is %q; it must be what the channel's metadata state: a to z, 0 to 9 and dashes, at most 32", c.Name)
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Fragment != "" || len(c.URL) > 4096 {
		p.add(toml.Key{"channel", "url"}, "%q is not the http or https URL of the channel's metadata", c.URL)
	}
}

func (p *problems) health(c *Config) {
	h := c.Health
	for _, unit := range h.Units {
		if !unitName.MatchString(unit) {
			p.add(toml.Key{"health", "units"}, "%q is not the full name of a systemd unit, such as \"app.service\"", unit)
		}
	}
	if h.Deadline <= h.MinUptime {
		p.add(toml.Key{"health", "deadline"}, "%v is not longer than min_uptime, %v: no trial could succeed", h.Deadline, h.MinUptime)
	}
	names := map[string]bool{}
	for i, command := range h.Commands {
		key := toml.Key{"health", "commands"}
		what := fmt.Sprintf("number %d (%q)", i+1, command.Name)
		switch {
		case !word.MatchString(command.Name):
			p.add(key, "%s needs a name of letters, digits, dots, dashes and underscores", what)
		case names[command.Name]:
			p.add(key, "%s has the name of another one", what)
		}
		names[command.Name] = true
		if len(command.Argv) == 0 || !filepath.IsAbs(command.Argv[0]) {
			p.add(key, "%s needs argv = [\"/absolute/path\", \"argument\", …]", what)
		}
		if command.Timeout >= h.Deadline {
			p.add(key, "%s has a timeout of %v, which is not shorter than the deadline of %v", what, command.Timeout, h.Deadline)
		}
	}
}
