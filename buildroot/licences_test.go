// SPDX-License-Identifier: Apache-2.0

package buildroot

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the lists of licences anew")

const (
	makeFile = "package/updaterd/updaterd.mk"
	hashFile = "package/updaterd/updaterd.hash"
)

var licenceFile = regexp.MustCompile(`^(LICEN[CS]E|COPYING|COPYRIGHT)([-.]|$)`)

// linkedLicences are the licences of what is linked into the device binary, by
// their path in the release tarball; "go mod vendor" keeps those of a package's
// directory and of all above it in its module.
func linkedLicences(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{"LICENSE": "../LICENSE"}
	for _, arch := range []string{"amd64", "arm", "arm64", "riscv64"} {
		cmd := exec.Command("go", "list", "-deps", "-tags", "nethttpomithttp2", "-f",
			"{{with .Module}}{{if not .Main}}{{$.ImportPath}} {{$.Dir}} {{.Path}}{{end}}{{end}}", "../updaterd")
		cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0", "GOARCH="+arch)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", cmd, err)
		}
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			if len(f) != 3 {
				continue
			}
			found := false
			for name, dir := f[0], f[1]; len(name) >= len(f[2]); name, dir = path.Dir(name), filepath.Dir(dir) {
				entries, err := os.ReadDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range entries {
					// LICENSE.docs is about documents, which are not linked.
					if e.Type().IsRegular() && licenceFile.MatchString(e.Name()) && e.Name() != "LICENSE.docs" {
						files[path.Join("vendor", name, e.Name())] = filepath.Join(dir, e.Name())
						found = true
					}
				}
			}
			if !found {
				t.Errorf("package %s has no licence", f[0])
			}
		}
	}
	return files
}

// The package names every licence, for "make legal-info", with its sum.
func TestLicences(t *testing.T) {
	files := linkedLicences(t)
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
