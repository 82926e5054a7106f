// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"errors"
	"fmt"
	"strings"
)

// A namespace is one set of variables of the YAML form, which libubootenv reads
// since 0.3.3:
//
//	uboot:
//	  size : 0x4000
//	  lockfile : /var/lock/fw_printenv.lock
//	  devices:
//	    - path : /dev/mmcblk0
//	      offset : 0x100000
//	    - path : /dev/mmcblk0
//	      offset : 0x108000
type namespace struct {
	name, lock string
	size       int64
	config     Config
}

// yamlLine is one line of the part of YAML that is read here: mappings and
// sequences in block style, plain or quoted scalars, comments.
type yamlLine struct {
	n      int
	column int  // of the key or the scalar
	item   bool // it begins an item of a sequence
	key    string
	value  string
}

// isYAML tells the two forms apart: a line of the other one begins with a device
// and its offset, and a mapping with a name and a colon.
func isYAML(text string) bool {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, found := strings.Cut(line, ":")
		return line == "---" || found && !strings.ContainsAny(strings.TrimSpace(name), " \t") && (rest == "" || rest[0] == ' ' || rest[0] == '\t')
	}
	return false
}

// parseYAML reads all namespaces and returns the one that is U-Boot's: the only
// one, or the one called uboot.
func parseYAML(text string) (Config, string, error) {
	lines, err := yamlLines(text)
	if err != nil {
		return nil, "", err
	}
	var all []*namespace
	for len(lines) > 0 {
		l := lines[0]
		if l.item || l.column != 0 || l.key == "" || l.value != "" {
			return nil, "", fmt.Errorf("line %d: the name of a set of variables and a colon are expected, such as \"uboot:\"", l.n)
		}
		n := 1
		for n < len(lines) && lines[n].column > 0 {
			n++
		}
		s := &namespace{name: l.key}
		if err := s.parse(lines[1:n]); err != nil {
			return nil, "", err
		}
		all, lines = append(all, s), lines[n:]
	}
	var names []string
	for _, s := range all {
		if len(all) == 1 || s.name == "uboot" {
			return s.config, s.lock, nil
		}
		names = append(names, s.name)
	}
	if names == nil {
		return nil, "", errors.New("it names no copy: write a set of variables with size and devices")
	}
	return nil, "", fmt.Errorf("none of its sets of variables (%s) is called uboot: name U-Boot's so", strings.Join(names, ", "))
}

func yamlLines(text string) ([]yamlLine, error) {
	var lines []yamlLine
	n := 0
	for raw := range strings.Lines(text) {
		n++
		line := strings.TrimRight(raw, " \t\r\n")
		body := strings.TrimLeft(line, " ")
		if body == "" || body[0] == '#' || line == "---" && lines == nil {
			continue
		}
		if strings.ContainsAny(line, "\t\x00") {
			return nil, fmt.Errorf("line %d: it holds a tab or a NUL byte; YAML is indented with blanks", n)
		}
		l := yamlLine{n: n}
		if rest, ok := strings.CutPrefix(body, "- "); ok {
			l.item, body = true, strings.TrimLeft(rest, " ")
		}
		l.column = len(line) - len(body)
		if at := strings.Index(body, " #"); at >= 0 {
			body = strings.TrimRight(body[:at], " ")
		}
		var err error
		if key, value, ok := strings.Cut(body+" ", ": "); ok {
			l.key = strings.TrimSpace(key)
			l.value, err = scalar(strings.TrimSpace(value))
		} else {
			l.value, err = scalar(body)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// scalar reads a plain scalar, or a quoted one without escapes.
func scalar(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if quote := s[0]; quote == '"' || quote == '\'' {
		inner := strings.Trim(s, string(quote))
		if len(s) != len(inner)+2 || strings.ContainsAny(inner, "\\\"'") {
			return "", fmt.Errorf("%.40q is not a string in quotes without escapes", s)
		}
		return inner, nil
	}
	if strings.ContainsAny(s[:1], "&*!|>%@`[]{},?") {
		return "", fmt.Errorf("%.40q: this part of YAML is not read here; write a plain value", s)
	}
	return s, nil
}

// parse reads the lines below the name of a namespace.
func (s *namespace) parse(lines []yamlLine) error {
	seen := map[string]bool{}
	for len(lines) > 0 {
		l := lines[0]
		if l.item || l.key == "" {
			return fmt.Errorf("line %d: a key of set %s is expected: size, lockfile, devices or writelist", l.n, s.name)
		}
		if seen[l.key] {
			return fmt.Errorf("line %d: %s is given twice", l.n, l.key)
		}
		seen[l.key] = true
		n := 1
		for n < len(lines) && (lines[n].item || lines[n].column > l.column) {
			n++
		}
		below := lines[1:n]
		lines = lines[n:]
		if len(lines) > 0 && lines[0].column != l.column {
			return fmt.Errorf("line %d: it is not indented as line %d is", lines[0].n, l.n)
		}
		var err error
		switch l.key {
		case "size":
			s.size, err = parseSize(l)
		case "lockfile":
			s.lock = l.value
		case "devices":
			err = s.devices(below)
			below = nil
		case "writelist":
			// It says what fw_setenv may change. What U-Boot lets Linux change is
			// U-Boot's to say (CONFIG_ENV_WRITEABLE_LIST), and the canary shows it.
			for _, b := range below {
				if !b.item || b.key != "" {
					return fmt.Errorf("line %d: writelist holds items such as \"- name:flags\"", b.n)
				}
			}
			below = nil
		default:
			err = fmt.Errorf("line %d: unknown key %.40q: use size, lockfile, devices and writelist", l.n, l.key)
		}
		if err == nil && len(below) > 0 {
			err = fmt.Errorf("line %d: nothing is expected below %s", below[0].n, l.key)
		}
		if err != nil {
			return err
		}
	}
	for i := range s.config {
		s.config[i].Size = s.size
	}
	return nil
}

func (s *namespace) devices(lines []yamlLine) error {
	var seen map[string]bool
	for i, l := range lines {
		if l.item {
			if len(s.config) == 2 {
				return fmt.Errorf("line %d: a third copy, but U-Boot has at most two", l.n)
			}
			s.config = append(s.config, Location{})
			seen = map[string]bool{}
		}
		if seen == nil || l.key == "" || l.column != lines[0].column {
			return fmt.Errorf("line %d: a device is expected, such as \"- path : /dev/mmcblk0\", and below it, as far from the left as path, its other keys", l.n)
		}
		if seen[l.key] {
			return fmt.Errorf("line %d: %s is given twice", l.n, l.key)
		}
		seen[l.key] = true
		to := &s.config[len(s.config)-1]
		var err error
		switch l.key {
		case "path":
			to.Path = l.value
		case "offset":
			if to.Offset, err = parseOffset(l.value); err != nil {
				err = fmt.Errorf("line %d: %w", l.n, err)
			}
		case "sectorsize":
			to.SectorSize, err = parseSize(l)
		case "disablelock":
			if l.value != "yes" && l.value != "no" {
				err = fmt.Errorf("line %d: disablelock is %.40q, but yes or no is expected", l.n, l.value)
			}
			to.NoLock = l.value == "yes"
		default:
			err = fmt.Errorf("line %d: unknown key %.40q: use path, offset, sectorsize and disablelock", l.n, l.key)
		}
		if err != nil {
			return err
		}
		if last := i+1 == len(lines) || lines[i+1].item; last && to.Path == "" {
			return fmt.Errorf("line %d: the device has no path", l.n)
		}
	}
	return nil
}

// parseSize reads a size of the YAML form, which is hexadecimal only with 0x.
func parseSize(l yamlLine) (int64, error) {
	n, err := parseOffset(l.value)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("line %d: %s %.40q is not a number of at most 63 bits", l.n, l.key, l.value)
	}
	return n, nil
}
