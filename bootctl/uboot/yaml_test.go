// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The example of libubootenv's documentation, as its parser takes it.
const yamlExample = `# sets of variables
uboot:
  size : 0x4000
  lockfile : /var/lock/fw_printenv.lock
  writelist:
    - var1:sw
    - var3:dw
  devices:
    - path : /dev/mtd0
      offset : 0xA0000
      sectorsize : 0x10000
      disablelock : yes
    - path : /dev/mtd0
      offset : 0xB0000
      sectorsize : 0x10000

appvar:
  size : 0x4000
  lockfile : /var/lock/appvar.lock
  devices:
    - path : /dev/mtd1
      offset : 0
`

func TestYAML(t *testing.T) {
	mtd := Config{
		{Path: "/dev/mtd0", Offset: 0xa0000, Size: 0x4000, SectorSize: 0x10000, NoLock: true},
		{Path: "/dev/mtd0", Offset: 0xb0000, Size: 0x4000, SectorSize: 0x10000},
	}
	for _, tc := range []struct {
		name, text string
		want       Config
		lock       string
		fails      string // part of the error
	}{
		{name: "the documentation's", text: yamlExample, want: mtd, lock: "/var/lock/fw_printenv.lock"},
		{name: "uboot last", text: "x:\n  size: 4096\n  devices:\n  - path: f\n" + yamlExample, want: mtd, lock: "/var/lock/fw_printenv.lock"},
		{name: "the only one", text: "---\nboard:\n  devices:\n  - path: \"/dev/mmcblk0boot0\" # the first\n    offset: -16384\n  size: 16384\n",
			want: Config{{Path: "/dev/mmcblk0boot0", Offset: -0x4000, Size: 0x4000}}},
		{name: "volumes", text: "uboot:\n size: 0x1f000\n devices:\n  - path: /dev/ubi0:env\n  - path: '/dev/ubi0:redund'\n    disablelock: no\n",
			want: Config{{Path: "/dev/ubi0:env", Size: 0x1f000}, {Path: "/dev/ubi0:redund", Size: 0x1f000}}},
		{name: "carriage returns", text: "uboot:\r\n  size: 0x4000\r\n  devices:\r\n    - path: f\r\n", want: Config{{Path: "f", Size: 0x4000}}},
		{name: "two, none uboot", text: strings.Replace(yamlExample, "uboot:", "other:", 1), fails: "(other, appvar) is called uboot"},
		{name: "unlock, which no parser knows", text: strings.Replace(yamlExample, "disablelock", "unlock", 1), fails: `line 12: unknown key "unlock"`},
		{name: "unknown key", text: strings.Replace(yamlExample, "lockfile", "lock", 1), fails: `line 4: unknown key "lock"`},
		{name: "three copies", text: "uboot:\n size: 0x4000\n devices:\n - path: a\n - path: b\n - path: c\n", fails: "line 6: a third copy"},
		{name: "no size", text: "uboot:\n devices:\n - path: a\n", fails: "not between"},
		{name: "no devices", text: "uboot:\n size: 0x4000\n", fails: "names no copy"},
		{name: "no path", text: "uboot:\n size: 0x4000\n devices:\n - offset: 0\n - path: b\n", fails: "line 4: the device has no path"},
		{name: "twice", text: "uboot:\n size: 0x4000\n size: 0x4000\n", fails: "line 3: size is given twice"},
		{name: "path twice", text: "uboot:\n size: 0x4000\n devices:\n - path: a\n   path: b\n", fails: "line 5: path is given twice"},
		{name: "size in hexadecimal digits", text: "uboot:\n size: 4k\n", fails: `line 2: size "4k" is not a number`},
		{name: "negative size", text: "uboot:\n size: -1\n", fails: `line 2: size "-1" is not a number`},
		{name: "bad offset", text: "uboot:\n size: 1\n devices:\n - path: a\n   offset: end\n", fails: `line 5: offset "end"`},
		{name: "bad disablelock", text: "uboot:\n size: 1\n devices:\n - path: a\n   disablelock: 1\n", fails: "line 5: disablelock"},
		{name: "tab", text: "uboot:\n\tsize: 1\n", fails: "line 2: it holds a tab"},
		{name: "flow style", text: "uboot:\n size: 1\n devices: [a]\n", fails: "line 3: "},
		{name: "indentation", text: "uboot:\n  size: 1\n devices:\n", fails: "line 3: it is not indented as line 2"},
		{name: "indentation of a device", text: "uboot:\n  size: 1\n  devices:\n    - path: a\n       offset: 1\n", fails: "line 5: a device is expected"},
		{name: "something below", text: "uboot:\n  size: 1\n    x: 1\n", fails: "line 3: nothing is expected below size"},
		{name: "blank in a path", text: "uboot:\n size: 0x4000\n devices:\n - path: a b\n", fails: "not the name of a device"},
		{name: "no name", text: "uboot: 1\n", fails: "line 1: the name"},
		{name: "indented name", text: "---\n uboot:\n  size: 1\n", fails: "line 2: the name"},
		{name: "quotes", text: "uboot:\n lockfile: \"a\n", fails: "line 2: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, lock, err := ParseConfig([]byte(tc.text))
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Fatalf("ParseConfig = %v, %v; want an error with %q", got, err, tc.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || lock != tc.lock {
				t.Errorf("lock %q; want %q; %s", lock, tc.lock, diff)
			}
		})
	}
}
