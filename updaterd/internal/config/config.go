// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	_ "embed"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// maxFile bounds the configuration file.
const maxFile = 256 << 10

// Config is the whole file.
type Config struct {
	Compatible string          `toml:"compatible"`
	DataDir    string          `toml:"data_dir"`
	FloorStore string          `toml:"floor_store"` // "" = data_dir alone keeps the floors
	Keyring    string          `toml:"keyring"`
	Threshold  int             `toml:"threshold"`
	Policy     string          `toml:"policy"`   // "" = any threshold keys of the keyring, for everything
	Identity   string          `toml:"identity"` // "" = no bundle that is encrypted can be read
	Self       Self            `toml:"device"`
	Boot       Boot            `toml:"boot"`
	Slots      map[string]Slot `toml:"slots"` // "rootfs.a"
	Download   Download        `toml:"download"`
	Channel    Channel         `toml:"channel"`
	Health     Health          `toml:"health"`
	Watchdog   Watchdog        `toml:"watchdog"`
	Trial      Trial           `toml:"trial"`
	Migrate    Migrate         `toml:"migrate"`
}

// Self is which device it is, for permits.
type Self struct {
	IDFile string   `toml:"id_file"` // "" = it has no id
	Groups []string `toml:"groups"`
}

// Boot is the boot contract.
type Boot struct {
	Scheme       string   `toml:"scheme"`
	SlotNames    []string `toml:"slot_names"` // in scheme bootorder
	FwEnvConfig  string   `toml:"fw_env_config"`
	RequireEnvID bool     `toml:"require_env_id"`
	Defaults     string   `toml:"defaults"` // "" = a lost environment is not restored
}

// Slot is one slot of one class.
type Slot struct {
	Device string `toml:"device"`
	Type   string `toml:"type"`
	// Of a region of a disk, whose place an entry of the partition table says.
	Offset    Size `toml:"offset"`
	Size      Size `toml:"size"`
	Partition int  `toml:"partition"`
}

// The types of slots: who chooses between the two of a class.
const (
	// TypePartition is chosen by the bootloader, as its environment says.
	TypePartition = "partition"
	// TypeEMMCBoot is a boot partition of an eMMC, chosen by the card.
	TypeEMMCBoot = "emmc-boot"
	// TypeFallbackCopy is one of two copies of which the ROM starts the first
	// that has a header.
	TypeFallbackCopy = "fallback-copy"
	// TypeMBRSwitch and TypeGPTSwitch are halves of a region of a disk; an entry of
	// the partition table says which of them is started.
	TypeMBRSwitch = "mbr-switch"
	TypeGPTSwitch = "gpt-switch"
)

var slotTypes = []string{TypePartition, TypeEMMCBoot, TypeFallbackCopy, TypeMBRSwitch, TypeGPTSwitch}

// Region reports whether a class's slots are parts of a disk, without a device of their own.
func (c *Config) Region(class string) bool {
	return c.Type(class) == TypeMBRSwitch || c.Type(class) == TypeGPTSwitch
}

// Download is how bundles are fetched.
type Download struct {
	Mode        string `toml:"mode"`
	StoreBudget Size   `toml:"store_budget"`
	ByteBudget  Size   `toml:"byte_budget"` // 0 = no limit
	Fallback    string `toml:"fallback"`
	CAFile      string `toml:"ca_file"`
}

// Channel is where updates come from, if anything says so.
type Channel struct {
	Name     string   `toml:"name"`
	URL      string   `toml:"url"`      // "" = nothing offers updates
	Interval Duration `toml:"interval"` // 0 = only when asked
	Expired  string   `toml:"expired"`
}

// What to do about channel metadata past their end.
const (
	ExpiredWarn   = "warn"
	ExpiredRefuse = "refuse"
)

// Health is what a trial must prove.
type Health struct {
	Units        []string  `toml:"units"`
	Commands     []Command `toml:"commands"`
	Deadline     Duration  `toml:"deadline"`
	MinUptime    Duration  `toml:"min_uptime"`
	BootComplete bool      `toml:"boot_complete"`
}

// Command is one health check.
type Command struct {
	Name    string   `toml:"name"`
	Argv    []string `toml:"argv"`
	Timeout Duration `toml:"timeout"`
}

// Watchdog is the hardware watchdog, if updaterd is the one who opens it.
type Watchdog struct {
	Device  string   `toml:"device"`
	Timeout Duration `toml:"timeout"`
}

// Trial is what is tried how often.
type Trial struct {
	MaxAttempts int `toml:"max_attempts"`
}

// Migrate is what brings the applications' data into the form of a new release.
type Migrate struct {
	Argv    []string `toml:"argv"` // none = nothing is to be done
	Timeout Duration `toml:"timeout"`
}

const defaultCommandTimeout = Duration(30 * time.Second)

// Defaults is the configuration before the file is read. It lacks what only an
// integrator can know: compatible and the slots.
func Defaults() *Config {
	return &Config{
		DataDir:   "/data/updaterd",
		Keyring:   "/etc/updaterd/keys",
		Threshold: 1,
		Self:      Self{IDFile: "/etc/machine-id", Groups: []string{}},
		Boot:      Boot{Scheme: "bootcount", SlotNames: []string{"A", "B"}, FwEnvConfig: "/etc/fw_env.config", RequireEnvID: true},
		Download:  Download{Mode: "auto", StoreBudget: 64 << 20, Fallback: "full"},
		Channel:   Channel{Interval: Duration(6 * time.Hour), Expired: ExpiredWarn},
		Health:    Health{Deadline: Duration(5 * time.Minute), MinUptime: Duration(10 * time.Second)},
		Watchdog:  Watchdog{Timeout: Duration(30 * time.Second)},
		Trial:     Trial{MaxAttempts: 3},
		Migrate:   Migrate{Argv: []string{}, Timeout: Duration(10 * time.Minute)},
	}
}

//go:embed updaterd.toml
var defaultFile []byte

// DefaultFile is the commented file that documents every key.
func DefaultFile() []byte { return slices.Clone(defaultFile) }

// Load reads the file at path.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, nil
}

// Salvage is the default configuration with what can be made out of [boot] in a file
// that [Load] refuses. It is good for finding the boot environment, and for nothing
// else: the scheme is left open, for the one that the environment follows.
func Salvage(path string) *Config {
	c := Defaults()
	var file struct {
		Boot Boot `toml:"boot"`
	}
	if f, err := os.Open(path); err == nil {
		defer f.Close()
		// With an error, what was decoded before it is in file.
		_, _ = toml.NewDecoder(io.LimitReader(f, maxFile)).Decode(&file)
	}
	c.Boot = Boot{FwEnvConfig: cmp.Or(file.Boot.FwEnvConfig, c.Boot.FwEnvConfig), SlotNames: file.Boot.SlotNames}
	return c
}

// Classes lists the slot classes, sorted.
func (c *Config) Classes() []string {
	classes := map[string]bool{}
	for name := range c.Slots {
		class, _, _ := strings.Cut(name, ".")
		classes[class] = true
	}
	return slices.Sorted(maps.Keys(classes))
}

// Type is the type of a class's slots.
func (c *Config) Type(class string) string {
	if t := c.Slots[class+".a"].Type; t != "" {
		return t
	}
	return TypePartition
}

// Device is the device of a slot, such as class "rootfs", slot "a"; "" if there is none.
func (c *Config) Device(class, slot string) string { return c.Slots[class+"."+slot].Device }
