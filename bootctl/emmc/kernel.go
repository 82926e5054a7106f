// SPDX-License-Identifier: Apache-2.0

package emmc

import (
	"fmt"
	"regexp"
	"strconv"
)

// number is the version of a kernel.
type number [3]int

func (n number) less(m number) bool {
	for i := range n {
		if n[i] != m[i] {
			return n[i] < m[i]
		}
	}
	return false
}

// faulty lists the kernels that must not be asked to talk to a card: from,
// inclusive, to, exclusive. The last seven pass such commands on with a
// structure that is not initialised; those before them keep an old copy of
// PARTITION_CONFIG, and write it back when they change partitions.
var faulty = [][2]number{
	{{0, 0, 0}, {4, 14, 31}},
	{{4, 15, 0}, {4, 15, 14}},
	{{5, 4, 269}, {5, 4, 274}},
	{{5, 10, 210}, {5, 10, 215}},
	{{5, 15, 149}, {5, 15, 154}},
	{{6, 1, 76}, {6, 1, 84}},
	{{6, 6, 15}, {6, 6, 24}},
	{{6, 7, 3}, {6, 7, 12}},
	{{6, 8, 0}, {6, 8, 3}},
}

var (
	versionNumber = regexp.MustCompile(`^([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4}))?`)
	// Debian's release is that of its interface; the number is in the version.
	debianNumber = regexp.MustCompile(`\bDebian ([0-9][0-9.]*)`)
)

// checkKernel refuses a kernel of which it is known that it does not pass
// commands on to a card as it should; release and version are uname's.
func checkKernel(release, version string) error {
	text := release
	if m := debianNumber.FindStringSubmatch(version); m != nil {
		text = m[1]
	}
	m := versionNumber.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("the kernel's release %.40q is no version number, so it is not known whether it can switch the boot partition of an eMMC", text)
	}
	var n number
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1]) // a third number that is not there is 0
	}
	for _, f := range faulty {
		if !n.less(f[0]) && n.less(f[1]) {
			return fmt.Errorf("kernel %s cannot be trusted to switch the boot partition of an eMMC: use %d.%d.%d or a later one", text, f[1][0], f[1][1], f[1][2])
		}
	}
	return nil
}
