// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Parse reads a configuration file.
func Parse(b []byte) (*Config, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("more than %d bytes", maxFile)
	}
	c := Defaults()
	meta, err := toml.NewDecoder(bytes.NewReader(b)).Decode(c)
	if err != nil {
		return nil, errors.New(tidy(err))
	}
	lines := index(b)
	var problems []error
	for _, key := range unknown(meta) {
		problems = append(problems, fmt.Errorf("%sunknown key %s%s", lines.at(key), key, hint(key)))
	}
	if len(problems) > 0 { // what a misspelt key was to say is missing: more complaints would mislead
		return nil, errors.Join(problems...)
	}
	for i := range c.Health.Commands {
		if c.Health.Commands[i].Timeout == 0 {
			c.Health.Commands[i].Timeout = defaultCommandTimeout
		}
	}
	for _, p := range c.validate() {
		problems = append(problems, fmt.Errorf("%s%s: %s", lines.at(p.key), p.key, p.text))
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return c, nil
}

var (
	decodeError = regexp.MustCompile(`^line (\d+)(?: \(last key "(.*)"\))?: ((?s).*)$`)
	typeError   = regexp.MustCompile(`^incompatible types: TOML value has type (\w+); destination has type (\w+)$`)
	kinds       = map[string]string{"slice": "a list", "bool": "true or false", "string": "a text in quotes", "int": "a whole number",
		"integer": "a whole number", "float": "a number", "map": "a table", "struct": "a table", "boolean": "true or false", "list": "a list"}
)

// tidy puts an error of the decoder into the words and the form of the others.
func tidy(err error) string {
	text := strings.TrimPrefix(err.Error(), "toml: ")
	m := decodeError.FindStringSubmatch(text)
	if m == nil {
		return text
	}
	line, key, what := m[1], m[2], m[3]
	if t := typeError.FindStringSubmatch(what); t != nil && kinds[t[2]] != "" {
		what = fmt.Sprintf("is of type %s; it must be %s", t[1], kinds[t[2]])
	}
	if strings.HasPrefix(what, "type mismatch for ") && strings.Contains(what, "expected table") {
		what = "must be a table"
	}
	if key != "" {
		what = key + ": " + what
	}
	return "line " + line + ": " + what
}

// unknown lists the keys that are not spelt exactly as the struct says. The
// decoder itself would let another case pass, and pick one if both are there.
func unknown(meta toml.MetaData) []toml.Key {
	known := knownKeys(reflect.TypeFor[Config]())
	bad := meta.Undecoded()
	for _, key := range meta.Keys() {
		if !slices.ContainsFunc(known, func(k toml.Key) bool { return matches(k, key) }) &&
			!slices.ContainsFunc(bad, func(k toml.Key) bool { return slices.Equal(k, key) }) {
			bad = append(bad, key)
		}
	}
	return bad
}

// knownKeys lists all keys that a struct has room for; "*" stands for any name.
func knownKeys(t reflect.Type) []toml.Key {
	switch t.Kind() {
	case reflect.Slice:
		return knownKeys(t.Elem())
	case reflect.Map:
		keys := []toml.Key{{"*"}}
		for _, k := range knownKeys(t.Elem()) {
			keys = append(keys, append(toml.Key{"*"}, k...))
		}
		return keys
	case reflect.Struct:
		var keys []toml.Key
		for field := range t.Fields() {
			name := field.Tag.Get("toml")
			keys = append(keys, toml.Key{name})
			for _, k := range knownKeys(field.Type) {
				keys = append(keys, append(toml.Key{name}, k...))
			}
		}
		return keys
	}
	return nil
}

func matches(known, key toml.Key) bool {
	return slices.EqualFunc(known, key, func(k, name string) bool { return k == "*" || k == name })
}

// hint guesses what an unknown key was meant to be.
func hint(key toml.Key) string {
	if len(key) >= 3 && key[0] == "slots" && (key[2] == "a" || key[2] == "b") {
		return fmt.Sprintf("; put the slot's name into quotes: [slots.%q]", key[1]+"."+key[2])
	}
	best, distance := "", 3 // more than two typing errors are no guess
	last := key[len(key)-1]
	for _, known := range knownKeys(reflect.TypeFor[Config]()) {
		name := known[len(known)-1]
		if name == "*" || last == "" {
			continue
		}
		d := editDistance(strings.ToLower(last), name)
		samePlace := len(known) == len(key) && matches(known[:len(known)-1], key[:len(key)-1])
		if !samePlace {
			d++ // the right word in the wrong table is less likely
		}
		if d < distance && d < len(name) {
			best, distance = known.String(), d
			if samePlace {
				best = append(slices.Clone(key[:len(key)-1]), name).String()
			}
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", strings.ReplaceAll(best, `"*"`, `"…"`))
}

// editDistance counts the insertions, deletions and replacements between two
// short words; long ones are not compared.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
