// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Where the two copies of the environment are on the disk; updaterd.config says the same to U-Boot.
const (
	EnvSize    = 0x4000
	EnvOffset  = 0x100000
	EnvOffset2 = 0x108000
)

// Config is the fragment that is merged over U-Boot's qemu_arm64_defconfig.
//
//go:embed updaterd.config
var Config string

// Env is the default environment, as text.
//
//go:embed updaterd.env
var Env string

// FwEnvConfig is /etc/fw_env.config, which says the same to Linux.
//
//go:embed fw_env.config
var FwEnvConfig string

// What makes a U-Boot load the variables of the boot contract alone from the
// disk, and all others from its own defaults: a fragment, code for the board, and
// the list, which is CONFIG_ENV_FLAGS_LIST_STATIC in the board's header.
var (
	//go:embed writeable.config
	WriteableConfig string
	//go:embed board/env_location.c
	WriteableBoard string
)

// WriteableList are those variables. Their type is a string: a value of another
// type would be dropped when it is loaded, and Linux would not learn of that.
const WriteableList = "boot_slot:sw,boot_bad:sw,upgrade_available:sw,bootcount:sw,bootlimit:sw,env_id:sw,"

// bootOrderEnv is the environment of a device that was fielded with RAUC.
//
//go:embed bootorder.env
var bootOrderEnv string

// BootOrder returns the environment of a device that was fielded with RAUC, to
// be written to a disk: scheme bootorder with the same U-Boot.
func BootOrder() (map[string]string, error) { return Parse(bootOrderEnv) }

// FirstEnv and SecondEnv are set over Env in the two stages of a board whose
// bootloader lies in a slot, and SecondConfig over Config in the second.
var (
	//go:embed first.env
	FirstEnv string
	//go:embed second.env
	SecondEnv string
	//go:embed second.config
	SecondConfig string
)

// Default returns the variables of Env, with those of the other texts set over them.
func Default(over ...string) (map[string]string, error) {
	env := map[string]string{}
	for _, text := range append([]string{Env}, over...) {
		vars, err := Parse(text)
		if err != nil {
			return nil, err
		}
		maps.Copy(env, vars)
	}
	return env, nil
}

// Text is env in the form that Parse reads.
func Text(env map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(env)) {
		fmt.Fprintf(&b, "%s=%s\n", name, env[name])
	}
	return b.String()
}

// Parse reads an environment text by the rules of U-Boot's CONFIG_DEFAULT_ENV_FILE:
// one name=value per line, lines that begin with # and empty lines are dropped, a
// backslash at the end joins the next line, whose leading blanks are dropped.
func Parse(text string) (map[string]string, error) {
	var kept []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if n := len(kept); n > 0 && strings.HasSuffix(kept[n-1], `\`) {
			kept[n-1] = strings.TrimSuffix(kept[n-1], `\`) + strings.TrimLeft(line, " \t")
			continue
		}
		kept = append(kept, line)
	}
	env := make(map[string]string, len(kept))
	for _, line := range kept {
		name, value, ok := strings.Cut(line, "=")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("parse environment: %q is not name=value", line)
		}
		if _, twice := env[name]; twice {
			return nil, fmt.Errorf("parse environment: %s is set twice", name)
		}
		if strings.HasSuffix(value, `\`) {
			return nil, fmt.Errorf("parse environment: %s ends in a backslash, but no line follows", name)
		}
		env[name] = value
	}
	return env, nil
}

// Encode makes one copy of a redundant environment: CRC-32 of the variables, the
// generation, then name=value strings that end in a NUL each, and a last NUL.
// Empty values are left out, as U-Boot does: there an empty variable does not exist.
func Encode(env map[string]string, size int, generation byte) ([]byte, error) {
	const header = 5
	var vars []byte
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value := env[name]
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
			return nil, fmt.Errorf("encode environment: %q=%q cannot be stored", name, value)
		}
		if value == "" {
			continue
		}
		vars = append(vars, name+"="+value+"\x00"...)
	}
	if header+len(vars)+1 > size {
		return nil, fmt.Errorf("encode environment: %d bytes of variables do not fit %d bytes", len(vars), size)
	}
	out := make([]byte, size)
	copy(out[header:], vars)
	out[4] = generation
	binary.LittleEndian.PutUint32(out, crc32.ChecksumIEEE(out[header:]))
	return out, nil
}

// checkConfig is the program that integrators run, too.
//
//go:embed check-config
var checkConfig string

// CheckConfig compares U-Boot's final .config with the fragment, because merging
// drops without an error what a dependency forbids or another release has renamed.
func CheckConfig(fragment, final string) error {
	dir, err := os.MkdirTemp("", "check-config-*")
	if err != nil {
		return fmt.Errorf("check U-Boot's configuration: %w", err)
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{"fragment": fragment, ".config": final} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("check U-Boot's configuration: %w", err)
		}
	}
	cmd := exec.Command("sh", "-s", filepath.Join(dir, "fragment"), filepath.Join(dir, ".config"))
	cmd.Stdin = strings.NewReader(checkConfig)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("check U-Boot's configuration: %w\n%s", err, out)
	}
	return nil
}
