// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// ParseText reads an environment from text, in the form of U-Boot's default
// environment file (CONFIG_DEFAULT_ENV_FILE) and of mkenvimage: a name=value a
// line; empty lines and those that begin with # are left out; a backslash at the
// end joins the next line, without the blanks before it.
func ParseText(text []byte) (*Env, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("parse environment text: %d bytes are more than the %d that it may have", len(text), MaxSize)
	}
	e := &Env{}
	seen := map[string]int{}
	entry, first, n := "", 0, 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' {
			continue // also between two lines that are joined
		}
		if first == 0 {
			first = n
		} else {
			line = strings.TrimLeft(line, " \t")
		}
		more := strings.HasSuffix(line, `\`)
		entry += strings.TrimSuffix(line, `\`)
		if more {
			continue
		}
		name, value, found := strings.Cut(entry, "=")
		switch {
		case !found:
			return nil, fmt.Errorf("parse environment text: line %d: %.40q is not name=value", first, entry)
		case seen[name] > 0:
			return nil, fmt.Errorf("parse environment text: line %d: %s is set a second time, after line %d", first, name, seen[name])
		}
		if err := e.Set(name, value); err != nil {
			return nil, fmt.Errorf("parse environment text: line %d: %w", first, err)
		}
		seen[name] = first
		entry, first = "", 0
	}
	if first > 0 {
		return nil, fmt.Errorf("parse environment text: line %d ends in a backslash, and no line follows", first)
	}
	return e, nil
}

// ReadText reads the file at path as ParseText does.
func ReadText(path string) (*Env, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read default environment: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read default environment: %w", err)
	}
	e, err := ParseText(text)
	if err != nil {
		return nil, fmt.Errorf("read default environment %s: %w", path, err)
	}
	return e, nil
}
