// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Errors of the codec that a caller can tell apart.
var (
	// ErrMalformed: the bytes have a good checksum, or none, but are no environment.
	ErrMalformed = errors.New("malformed environment")
	// ErrTooLarge: the variables do not fit in a copy.
	ErrTooLarge = errors.New("environment is full")
)

// Env is an environment: variables in the order in which they are stored. What
// it does not understand (an entry without "=", a comment) it keeps as it is.
// The zero value is an empty environment.
type Env struct {
	entries []string // without the terminating NUL; never empty strings
}

// Parse reads the data of a copy: strings that end in NUL, and an empty one at
// the end. What follows the end is padding of any value.
func Parse(data []byte) (*Env, error) {
	e := &Env{}
	for rest := data; ; {
		n := bytes.IndexByte(rest, 0)
		if n < 0 {
			return nil, fmt.Errorf("parse environment: %w: the list of variables does not end within %d bytes", ErrMalformed, len(data))
		}
		if n == 0 {
			// U-Boot looks for the end only after an entry, so it reads on here.
			if len(e.entries) == 0 && len(rest) > 1 && rest[1] != 0 {
				return nil, fmt.Errorf("parse environment: %w: it begins with an empty string", ErrMalformed)
			}
			return e, nil
		}
		entry := string(rest[:n])
		if name, value, ok := splitEntry(entry); ok && name == "" && value != "" {
			// U-Boot gives up on such an environment and uses its defaults.
			return nil, fmt.Errorf("parse environment: %w: value %.40q has no name", ErrMalformed, value)
		}
		e.entries = append(e.entries, entry)
		rest = rest[n+1:]
	}
}

// Encode writes the environment as data of exactly size bytes, padded with NUL.
func (e *Env) Encode(size int) ([]byte, error) {
	if n := e.Len(); n > size {
		return nil, fmt.Errorf("encode environment: %w: %d bytes are needed and a copy holds %d: remove variables that nothing uses", ErrTooLarge, n, size)
	}
	data := make([]byte, 0, size)
	for _, entry := range e.entries {
		data = append(data, entry...)
		data = append(data, 0)
	}
	return data[:size], nil // make cleared the rest
}

// Len is the number of bytes that the variables take, the end mark included.
func (e *Env) Len() int {
	n := 1
	if len(e.entries) == 0 {
		n = 2 // U-Boot needs the second NUL to see that there is nothing
	}
	for _, entry := range e.entries {
		n += len(entry) + 1
	}
	return n
}

// splitEntry reads one entry as U-Boot does: blanks before the name are
// skipped, "#" begins a comment, and an entry without "=" has no value.
func splitEntry(entry string) (name, value string, ok bool) {
	entry = strings.TrimLeft(entry, " \t")
	if strings.HasPrefix(entry, "#") {
		return "", "", false
	}
	name, value, _ = strings.Cut(entry, "=")
	return name, value, true
}

// Get returns the value of a variable, or "" if it is not set: an empty value
// is the same as none, here and in U-Boot. Of several entries the last counts.
func (e *Env) Get(name string) string {
	for _, entry := range slices.Backward(e.entries) {
		if n, value, ok := splitEntry(entry); ok && n == name {
			return value
		}
	}
	return ""
}

// Set gives a variable a value, in its place, or at the end if it is new. An
// empty value removes the variable.
func (e *Env) Set(name, value string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("set variable %.40q: %w", name, err)
	}
	if strings.IndexByte(value, 0) >= 0 {
		return fmt.Errorf("set variable %s: the value holds a NUL byte", name)
	}
	entries := make([]string, 0, len(e.entries)+1)
	done := value == ""
	// From the end, so that of several entries the one that counts is replaced.
	for _, entry := range slices.Backward(e.entries) {
		if n, _, ok := splitEntry(entry); ok && n == name {
			if done {
				continue
			}
			entry, done = name+"="+value, true
		}
		entries = append(entries, entry)
	}
	slices.Reverse(entries)
	if !done {
		entries = append(entries, name+"="+value)
	}
	e.entries = entries
	return nil
}

// checkName refuses what U-Boot, its scripts or its tools would misread.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("a variable needs a name")
	case len(name) > 256:
		return errors.New("the name is longer than 256 bytes")
	case name[0] == '#':
		return errors.New(`a name that begins with "#" is read as a comment`)
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' || c == '=' {
			return fmt.Errorf("the name holds the byte %q, but only visible ASCII other than \"=\" is allowed", c)
		}
	}
	return nil
}

// Vars returns the variables that are set.
func (e *Env) Vars() map[string]string {
	vars := make(map[string]string, len(e.entries))
	for _, entry := range e.entries {
		name, value, ok := splitEntry(entry)
		switch {
		case !ok || name == "":
		case value == "":
			delete(vars, name)
		default:
			vars[name] = value
		}
	}
	return vars
}

// Names returns the names of the variables that are set, sorted.
func (e *Env) Names() []string { return slices.Sorted(maps.Keys(e.Vars())) }

// Same reports whether both environments hold the same variables, in any order.
func (e *Env) Same(other *Env) bool { return maps.Equal(e.Vars(), other.Vars()) }

// Clone returns a copy that can be changed on its own.
func (e *Env) Clone() *Env { return &Env{entries: slices.Clone(e.entries)} }
