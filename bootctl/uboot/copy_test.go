// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"encoding/binary"
	"testing"
)

func TestSelect(t *testing.T) {
	good := func(flag byte) Copy { return Copy{Valid: true, Flag: flag} }
	for _, tc := range []struct {
		name          string
		first, second Copy
		want          int
	}{
		{"none", Copy{}, Copy{}, -1},
		{"only the first", good(0), Copy{Flag: 9}, 0},
		{"only the second", Copy{Flag: 9}, good(0), 1},
		{"larger first", good(2), good(1), 0},
		{"larger second", good(1), good(2), 1},
		{"equal", good(7), good(7), 0},
		{"0 follows 255", good(255), good(0), 1},
		{"0 follows 255, the other way round", good(0), good(255), 0},
		{"1 does not follow 255", good(255), good(1), 0},
		{"254 and 0", good(254), good(0), 0},
	} {
		if got := Counter.Select(tc.first, tc.second); got != tc.want {
			t.Errorf("%s: Select = %d; want %d", tc.name, got, tc.want)
		}
	}
}

// The next flag makes the other copy win, from every flag.
func TestNextFlagWins(t *testing.T) {
	for flag := range 256 {
		old, next := Copy{Valid: true, Flag: byte(flag)}, Copy{Valid: true, Flag: byte(flag) + 1}
		if Counter.Select(old, next) != 1 || Counter.Select(next, old) != 0 {
			t.Errorf("flag %d does not win over %d", byte(flag)+1, flag)
		}
	}
}

func TestCopyLayout(t *testing.T) {
	env := &Env{}
	if err := env.Set("a", "1"); err != nil {
		t.Fatal(err)
	}
	// The checksum of "a=1" and five NUL bytes, from an independent implementation (zlib's crc32).
	const data = "a=1\x00\x00\x00\x00\x00"
	sum := "\xd6\x6f\xf1\x7f"
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 { // as "mkenvimage -b" writes it
		sum = "\x7f\xf1\x6f\xd6"
	}
	for _, tc := range []struct {
		redundant bool
		want      string
	}{
		{false, sum + data},
		{true, sum + "\x2a" + data},
	} {
		image, err := EncodeCopy(env, 42, len(tc.want), tc.redundant)
		if err != nil {
			t.Fatal(err)
		}
		if string(image) != tc.want {
			t.Errorf("EncodeCopy(redundant %v) = %q; want %q", tc.redundant, image, tc.want)
		}
		c := DecodeCopy(image, tc.redundant)
		if !c.Valid || string(c.Data) != data || tc.redundant && c.Flag != 42 {
			t.Errorf("DecodeCopy = %+v", c)
		}
	}
	for _, size := range []int{-1, 0, 5, 6, MaxSize + 1} {
		if _, err := EncodeCopy(&Env{}, 0, size, true); err == nil {
			t.Errorf("EncodeCopy with size %d = nil", size)
		}
	}
	if DecodeCopy([]byte{0, 0, 0, 0, 0}, true).Valid {
		t.Error("a copy without data is valid")
	}
}
