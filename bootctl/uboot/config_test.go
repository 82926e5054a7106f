// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseConfig(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       Config
		fails      string // part of the error
	}{
		{name: "block device, two copies",
			text: "# Environment\n\n/dev/mmcblk0 0x100000 0x4000\n/dev/mmcblk0\t0x108000\t0x4000\n",
			want: Config{{Path: "/dev/mmcblk0", Offset: 0x100000, Size: 0x4000}, {Path: "/dev/mmcblk0", Offset: 0x108000, Size: 0x4000}}},
		{name: "all fields", text: "/dev/mtd0 0x4000 0x4000 0x20000 2 1",
			want: Config{{Path: "/dev/mtd0", Offset: 0x4000, Size: 0x4000, SectorSize: 0x20000, Sectors: 2, NoLock: true}}},
		{name: "numbers", text: "f 4096 4000 200 10 0", want: Config{{Path: "f", Offset: 4096, Size: 0x4000, SectorSize: 0x200, Sectors: 0x10}}},
		{name: "octal offset", text: "f 010 0x4000", want: Config{{Path: "f", Offset: 8, Size: 0x4000}}},
		{name: "from the end", text: "f -0x8000 0X4000\nf -16384 4000", want: Config{{Path: "f", Offset: -0x8000, Size: 0x4000}, {Path: "f", Offset: -16384, Size: 0x4000}}},
		{name: "comments and blanks", text: "  # indented\r\n\r\n  f 0 0x4000 # size is a guess\r\n", want: Config{{Path: "f", Size: 0x4000}}},
		{name: "nothing", text: "# /dev/mtd1 0x0 0x4000\n", fails: "names no copy"},
		{name: "two fields", text: "f 0\n", fails: "line 1: 2 fields"},
		{name: "seven fields", text: "f 0 4000 0 0 0 0\n", fails: "at most 6"},
		{name: "three copies", text: "f 0 4000\nf 0x4000 4000\nf 0x8000 4000", fails: "line 3: a third copy"},
		{name: "sizes differ", text: "f 0 4000\nf 0x4000 2000", fails: "different sizes"},
		{name: "no size", text: "f 0 0", fails: "not between"},
		{name: "too large", text: "f 0 100001", fails: "not between"},
		{name: "bad offset", text: "f 0b1 4000", fails: "offset"},
		{name: "underscore", text: "f 1_0 4000", fails: "offset"},
		{name: "two signs", text: "f --1 4000", fails: "offset"},
		{name: "octal with 8", text: "f 08 4000", fails: "offset"},
		{name: "large offset", text: "f 0xffffffffffffffff 4000", fails: "offset"},
		{name: "bad size", text: "f 0 4k", fails: "size"},
		{name: "negative size", text: "f 0 -4000", fails: "size"},
		{name: "bad flag", text: "f 0 4000 0 0 yes", fails: "0 or 1"},
		{name: "huge", text: strings.Repeat("#\n", MaxConfig), fails: "more than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, _, err := ParseConfig([]byte(tc.text))
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Fatalf("ParseConfig = %v, %v; want an error with %q", got, err, tc.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("/dev/mmcblk0 0x100000 0x4000\n/dev/mmcblk0 -0x108000 0x4000 0x200 1 1\n")
	f.Add("# c\n f 010 4000 # x\n")
	f.Add(yamlExample)
	f.Add("---\nb:\n  devices:\n  - path: \"f\" # x\n    offset: -1\n  size: 16384\n")
	f.Fuzz(func(t *testing.T, text string) {
		config, _, err := ParseConfig([]byte(text))
		if err != nil {
			return
		}
		for _, l := range config {
			if l.Size <= 0 || l.Size > MaxSize || l.SectorSize < 0 || l.Sectors < 0 {
				t.Fatalf("%q: out of bounds: %+v", text, l)
			}
		}
		again, _, err := ParseConfig([]byte(config.String()))
		if err != nil {
			t.Fatalf("%q was written as %q: %v", text, config, err)
		}
		if diff := cmp.Diff(config, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
