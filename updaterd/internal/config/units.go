// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written as "64MiB" or as a plain number.
type Size int64

var sizeUnits = []struct {
	name   string
	factor int64
}{ // the largest first, for writing
	{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9},
	{"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"B", 1},
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(b []byte) error {
	text := string(b)
	digits := strings.TrimRight(text, "BKMGTikb ")
	unit := strings.TrimSpace(text[len(digits):])
	factor := int64(0)
	for _, u := range sizeUnits {
		if u.name == unit || unit == "" && u.name == "B" {
			factor = u.factor
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || factor == 0 {
		return fmt.Errorf("%q is not a size; write a whole number and a unit, such as \"64MiB\" (B, kB, KiB, MB, MiB, GB, GiB, TB or TiB)", text)
	}
	if n > math.MaxInt64/factor {
		return fmt.Errorf("%q is too large", text)
	}
	*s = Size(n * factor)
	return nil
}

// MarshalText writes the size in the largest unit that gives a whole number.
func (s Size) MarshalText() ([]byte, error) {
	for _, u := range sizeUnits {
		if n := int64(s); n != 0 && n%u.factor == 0 {
			return fmt.Appendf(nil, "%d%s", n/u.factor, u.name), nil
		}
	}
	return []byte("0"), nil
}

func (s Size) String() string {
	b, _ := s.MarshalText()
	return string(b)
}

// Duration is a length of time, written as "90s" or "1m30s". A number without a
// unit is refused: people mean seconds, and other programs mean nanoseconds.
type Duration time.Duration

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(b []byte) error {
	parsed, err := time.ParseDuration(string(b))
	if err != nil || parsed < 0 {
		return fmt.Errorf("%q is not a length of time; write a number and a unit, such as \"90s\" or \"5m\"", b)
	}
	*d = Duration(parsed)
	return nil
}

// MarshalText writes the duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string { return time.Duration(d).String() }

// Std is the duration as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }
