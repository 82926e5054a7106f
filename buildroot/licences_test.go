// SPDX-License-Identifier: Apache-2.0

package buildroot

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/packaging/licences"
)

var update = flag.Bool("update", false, "write the lists of licences anew")

const (
	makeFile = "package/updaterd/updaterd.mk"
	hashFile = "package/updaterd/updaterd.hash"
)

// The package names every licence, for "make legal-info", with its sum.
func TestLicences(t *testing.T) {
	files, err := licences.Linked("..", "nethttpomithttp2", []string{"amd64", "arm", "arm64", "riscv64"}, "./updaterd")
	if err != nil {
		t.Fatal(err)
	}
	files["LICENSE"] = "../LICENSE"
	names := slices.Sorted(maps.Keys(files))
	list := "UPDATERD_LICENSE_FILES = \\\n\t" + strings.Join(names, " \\\n\t") + "\n"
	var sums strings.Builder
	for _, name := range names {
		text, err := os.ReadFile(files[name])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sums, "sha256  %x  %s\n", sha256.Sum256(text), name)
	}
	for file, part := range map[string]struct {
		begin, end, want string
	}{
		makeFile: {"\nUPDATERD_LICENSE_FILES", "HOST_UPDATERD_LICENSE_FILES", list},
		hashFile: {"\nsha256  ", "", sums.String()},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		before, rest, found := strings.Cut(string(text), part.begin)
		if file == hashFile { // the first sum is the tarball's
			first, more, _ := strings.Cut(rest, part.begin)
			before, rest = before+part.begin+first, more
		}
		have, after := part.begin[1:]+rest, ""
		if part.end != "" {
			have, after, found = strings.Cut(have, part.end)
			after = part.end + after
		}
		if !found {
			t.Fatalf("%s has no list of licences", file)
		}
		if *update {
			if err := os.WriteFile(file, []byte(before+"\n"+part.want+after), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if have != part.want {
			t.Errorf("%s does not list what is linked now; write it anew: go test ./buildroot -run TestLicences -update", file)
		}
	}
}
