// SPDX-License-Identifier: Apache-2.0

package buildroot

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
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

// The package names every licence of what is installed, for "make legal-info", with
// the sums of their texts: on devices, and the tools on build hosts.
func TestLicences(t *testing.T) {
	device := texts(t, "nethttpomithttp2", []string{"amd64", "arm", "arm64", "riscv64"}, "./updaterd")
	tools := texts(t, "", []string{"amd64", "arm64"}, "./bundle/cmd/updater-bundle", "./sign/cmd/updater-sign", "./sign/cmd/sigstore-kms-pkcs11")
	list := func(name, recipe string, files map[string]string) string {
		// Which licences those are is found out for OE-core.
		include := read(t, "../yocto/meta-updaterd/recipes-core/updaterd/"+recipe+"-licenses.inc")
		ids := regexp.MustCompile(`(?m)^LICENSE = "(.*)"$`).FindStringSubmatch(include)
		if ids == nil {
			t.Fatalf("the list of licences of %s in the Yocto layer has no LICENSE", recipe)
		}
		return name + "_LICENSE = " + strings.ReplaceAll(ids[1], " ${UPDATERD_AND} ", ", ") + "\n" +
			name + "_LICENSE_FILES = \\\n\t" + strings.Join(slices.Sorted(maps.Keys(files)), " \\\n\t") + "\n"
	}
	lists := list("UPDATERD", "updaterd", device) + list("HOST_UPDATERD", "updaterd-tools", tools)
	all := maps.Clone(device)
	maps.Copy(all, tools)
	var sums strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		text, err := os.ReadFile(all[name])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sums, "sha256  %x  %s\n", sha256.Sum256(text), name)
	}
	for file, part := range map[string]struct {
		begin, end, want string
	}{
		makeFile: {"\nUPDATERD_LICENSE = ", "\n# The Makefile has", lists},
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

// texts are the licences of what is linked, and where they lie.
func texts(t *testing.T, tags string, architectures []string, packages ...string) map[string]string {
	t.Helper()
	files, err := licences.Linked("..", tags, architectures, packages...)
	if err != nil {
		t.Fatal(err)
	}
	files["LICENSE"] = "../LICENSE"
	return files
}
