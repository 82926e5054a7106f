// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
)

// lineIndex finds the line of a key, for messages only: the decoder knows it
// but keeps it to itself. It reads headers and "key =" at the start of a line,
// which is how people write these files; for anything else it says nothing.
type lineIndex map[string]int

var (
	headerLine = regexp.MustCompile(`^\s*\[\[?\s*([^\]]+?)\s*\]`)
	keyLine    = regexp.MustCompile(`^\s*("[^"]*"|'[^']*'|[A-Za-z0-9_.-]+)\s*=`)
	keyPart    = regexp.MustCompile(`"[^"]*"|'[^']*'|[^.\s"']+`)
)

func index(b []byte) lineIndex {
	found := lineIndex{}
	var table toml.Key
	for i, line := range strings.Split(string(b), "\n") {
		var key toml.Key
		if m := headerLine.FindStringSubmatch(line); m != nil {
			table = split(m[1])
			key = table
		} else if m := keyLine.FindStringSubmatch(line); m != nil {
			key = append(append(toml.Key{}, table...), split(m[1])...)
		}
		for n := range key { // [a.b.c] is also where a.b appears
			if name := key[:n+1].String(); found[name] == 0 {
				found[name] = i + 1
			}
		}
	}
	return found
}

func split(s string) toml.Key {
	var key toml.Key
	for _, part := range keyPart.FindAllString(s, -1) {
		key = append(key, strings.Trim(part, `"'`))
	}
	return key
}

// at is "line N: ", or "" if the key cannot be found.
func (l lineIndex) at(key toml.Key) string {
	if n := l[key.String()]; n > 0 {
		return fmt.Sprintf("line %d: ", n)
	}
	return ""
}
