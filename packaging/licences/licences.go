// SPDX-License-Identifier: Apache-2.0

// Package licences finds the licences of the modules that are linked into
// programs. Every packaging has to name them.
package licences

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
)

var name = regexp.MustCompile(`^(LICEN[CS]E|COPYING|COPYRIGHT)([-.]|$)`)

// Linked returns the licences of all modules but this one that are linked into
// packages, for each of the architectures (GOARCH). A key is the path in the release
// tarball, where "go mod vendor" has put it, and its value the path of the file
// here. dir is where the packages are named from.
func Linked(dir, tags string, architectures []string, packages ...string) (map[string]string, error) {
	texts := make(map[string]string)
	for _, arch := range architectures {
		cmd := exec.Command("go", append([]string{"list", "-deps", "-tags", tags, "-json=ImportPath,Dir,Module"}, packages...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0", "GOARCH="+arch)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cmd, err)
		}
		for dec := json.NewDecoder(bytes.NewReader(out)); ; {
			var pkg struct {
				ImportPath, Dir string
				Module          *struct {
					Path string
					Main bool
				}
			}
			if err := dec.Decode(&pkg); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, fmt.Errorf("%s: %w", cmd, err)
			}
			if pkg.Module == nil || pkg.Module.Main {
				continue
			}
			if err := above(texts, pkg.ImportPath, pkg.Dir, pkg.Module.Path); err != nil {
				return nil, err
			}
		}
	}
	return texts, nil
}

// above notes the licences in the directory of a package, and in all above it in
// its module: "go mod vendor" keeps those.
func above(texts map[string]string, importPath, dir, module string) error {
	found := false
	for at := importPath; len(at) >= len(module); at, dir = path.Dir(at), filepath.Dir(dir) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			// LICENSE.docs is about documents, which are not linked.
			if e.Type().IsRegular() && name.MatchString(e.Name()) && e.Name() != "LICENSE.docs" {
				texts[path.Join("vendor", at, e.Name())] = filepath.Join(dir, e.Name())
				found = true
			}
		}
	}
	if !found {
		return fmt.Errorf("package %s has no licence", importPath)
	}
	return nil
}
