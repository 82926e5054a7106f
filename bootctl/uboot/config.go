// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxConfig is the largest fw_env.config, in bytes, that ParseConfig reads.
const MaxConfig = 64 << 10

// Location is where one copy of the environment is stored: one line of fw_env.config.
type Location struct {
	Path   string // file, block device, MTD device or UBI volume, also by its name: /dev/ubi0:env
	Offset int64  // negative: from the end of the block device
	Size   int64  // of the copy, header included
	// SectorSize and Sectors describe flash; 0 = not given.
	SectorSize int64
	Sectors    int64
	// NoLock is for flash that cannot lock sectors.
	NoLock bool
}

// Config is what fw_env.config says: one Location, or two for a redundant environment.
type Config []Location

// ParseConfig reads fw_env.config in either form: YAML as libubootenv has it,
// which may also name the lock file, or that of U-Boot's and libubootenv's tools: a line for each copy with device, offset, size, and optionally sector
// size, number of sectors and whether to leave out locking. The offset is
// decimal, octal (0…) or hexadecimal (0x…); sizes are always hexadecimal. A line
// that those tools would skip without a word because it is incomplete is an
// error here: half a redundant environment is no redundancy.
func ParseConfig(text []byte) (config Config, lockFile string, err error) {
	if len(text) > MaxConfig {
		return nil, "", fmt.Errorf("parse fw_env.config: %d bytes are more than the %d that it may have", len(text), MaxConfig)
	}
	if isYAML(string(text)) {
		config, lockFile, err = parseYAML(string(text))
		if err != nil {
			return nil, "", fmt.Errorf("parse fw_env.config: %w", err)
		}
	} else if config, err = parseLines(string(text)); err != nil {
		return nil, "", err
	}
	if err := config.validate(); err != nil {
		return nil, "", err
	}
	return config, lockFile, nil
}

func parseLines(text string) (Config, error) {
	var config Config
	n := 0
	for line := range strings.Lines(text) {
		n++
		fields := strings.FieldsFunc(line, isSpace)
		for i, f := range fields {
			if strings.HasPrefix(f, "#") && (i == 0 || i >= 3) {
				fields = fields[:i]
				break
			}
		}
		if len(fields) == 0 {
			continue
		}
		location, err := parseLocation(fields)
		if err != nil {
			return nil, fmt.Errorf("parse fw_env.config line %d: %w", n, err)
		}
		if len(config) == 2 {
			return nil, fmt.Errorf("parse fw_env.config line %d: a third copy, but U-Boot has at most two", n)
		}
		config = append(config, location)
	}
	return config, nil
}

// isSpace is C's isspace, by which those tools split a line.
func isSpace(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' }

func parseLocation(fields []string) (l Location, err error) {
	if len(fields) < 3 {
		return l, fmt.Errorf("%d fields, but device, offset and size are needed", len(fields))
	}
	if len(fields) > 6 {
		return l, fmt.Errorf("%d fields, but a line has at most 6", len(fields))
	}
	l.Path = fields[0]
	if l.Offset, err = parseOffset(fields[1]); err != nil {
		return l, err
	}
	for i, to := range []*int64{&l.Size, &l.SectorSize, &l.Sectors} {
		if i+2 >= len(fields) {
			return l, nil
		}
		what := []string{"size", "sector size", "number of sectors"}[i]
		if *to, err = parseHex(what, fields[i+2]); err != nil {
			return l, err
		}
	}
	if len(fields) == 6 {
		switch fields[5] {
		case "0":
		case "1":
			l.NoLock = true
		default:
			return l, fmt.Errorf("the last field is %q, but 0 or 1 is expected", fields[5])
		}
	}
	return l, nil
}

// parseOffset reads what C's %lli reads.
func parseOffset(s string) (int64, error) {
	digits, negative := strings.CutPrefix(s, "-")
	base := 10
	switch {
	case strings.HasPrefix(digits, "0x"), strings.HasPrefix(digits, "0X"):
		digits, base = digits[2:], 16
	case len(digits) > 1 && digits[0] == '0':
		base = 8
	}
	n, err := strconv.ParseUint(digits, base, 63)
	if err != nil {
		return 0, fmt.Errorf("offset %q is not a number of at most 63 bits", s)
	}
	if negative {
		return -int64(n), nil
	}
	return int64(n), nil
}

// parseHex reads what C's %zx reads; these fields are hexadecimal even without 0x.
func parseHex(what, s string) (int64, error) {
	digits := s
	if strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0X") {
		digits = s[2:]
	}
	n, err := strconv.ParseUint(digits, 16, 63)
	if err != nil {
		return 0, fmt.Errorf("%s %q is not a hexadecimal number", what, s)
	}
	return int64(n), nil
}

func (c Config) validate() error {
	if len(c) == 0 {
		return errors.New("parse fw_env.config: it names no copy: write a line with device, offset and size for each")
	}
	for _, l := range c {
		if l.Path == "" || l.Path[0] == '#' || strings.ContainsFunc(l.Path, func(r rune) bool { return r == 0 || isSpace(r) }) {
			return fmt.Errorf("parse fw_env.config: %.80q is not the name of a device", l.Path)
		}
		if l.Size <= headerRedundant+1 || l.Size > MaxSize {
			return fmt.Errorf("parse fw_env.config: the size %#x of the copy on %s is not between 0x7 and %#x (sizes are hexadecimal)", l.Size, l.Path, MaxSize)
		}
	}
	if len(c) == 2 && c[0].Size != c[1].Size {
		return fmt.Errorf("parse fw_env.config: the two copies have different sizes, %#x and %#x", c[0].Size, c[1].Size)
	}
	return nil
}

// String writes the configuration as a fw_env.config.
func (c Config) String() string {
	var b strings.Builder
	for _, l := range c {
		sign, offset := "", uint64(l.Offset)
		if l.Offset < 0 {
			sign, offset = "-", -offset
		}
		lock := 0
		if l.NoLock {
			lock = 1
		}
		fmt.Fprintf(&b, "%s %s%#x %#x %#x %#x %d\n", l.Path, sign, offset, l.Size, l.SectorSize, l.Sectors, lock)
	}
	return b.String()
}
