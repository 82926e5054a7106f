// SPDX-License-Identifier: Apache-2.0

package yocto

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
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

// The recipes that have a list of licences, and what is linked for them. The
// device binary is built for each architecture, the tools for build hosts.
var linked = map[string]struct {
	packages, architectures []string
	tags                    string
}{
	"updaterd": {[]string{"./updaterd"}, []string{"amd64", "arm", "arm64", "riscv64"}, "nethttpomithttp2"},
	"updaterd-tools": {
		[]string{"./bundle/cmd/updater-bundle", "./sign/cmd/updater-sign", "./sign/cmd/sigstore-kms-pkcs11"},
		[]string{"amd64", "arm64"}, "",
	},
}

// TestLicences compares what the recipes say about licences with the modules
// that are linked: OE-core wants every text named, with its sum.
func TestLicences(t *testing.T) {
	for name, what := range linked {
		t.Run(name, func(t *testing.T) {
			want, err := licences(what.packages, what.architectures, what.tags)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(layer, "recipes-core/updaterd", name+"-licenses.inc")
			if *update {
				if err := os.WriteFile(file, want, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			have, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(have, want) {
				t.Errorf("%s is not what is linked now; write it anew: go test ./yocto -run TestLicences -update", file)
			}
		})
	}
}

// licences makes an include file from what is linked.
func licences(packages, architectures []string, tags string) ([]byte, error) {
	texts := map[string]string{} // path in the release tarball: file here
	for _, arch := range architectures {
		cmd := exec.Command("go", append([]string{"list", "-deps", "-tags", tags, "-json=ImportPath,Dir,Module"}, packages...)...)
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0", "GOARCH="+arch)
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cmd, err)
		}
		for dec := json.NewDecoder(bytes.NewReader(out)); ; {
			var pkg struct {
				ImportPath, Dir string
				Module          *struct {
					Path, Dir string
					Main      bool
				}
			}
			if err := dec.Decode(&pkg); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, err
			}
			if pkg.Module == nil || pkg.Module.Main {
				continue
			}
			if err := findTexts(texts, pkg.ImportPath, pkg.Dir, pkg.Module.Path, pkg.Module.Dir); err != nil {
				return nil, err
			}
		}
	}
	texts["LICENSE"] = "../LICENSE"

	ids := map[string]bool{}
	var list strings.Builder
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		text, err := os.ReadFile(texts[name])
		if err != nil {
			return nil, err
		}
		found := identify(string(text))
		if len(found) == 0 {
			return nil, fmt.Errorf("%s is under a licence that this test does not know; add it to phrases", name)
		}
		for _, id := range found {
			ids[id] = true
		}
		sum := md5.Sum(text)
		fmt.Fprintf(&list, "    file://%s;md5=%s \\\n", name, hex.EncodeToString(sum[:]))
	}
	return fmt.Appendf(nil, `# SPDX-License-Identifier: Apache-2.0
#
# What is linked, by "go list -deps"; written by: go test ./yocto -run TestLicences -update

# Releases from blacksail on want an SPDX expression, and older ones do not know AND.
UPDATERD_AND = "${@bb.utils.contains('LAYERSERIES_CORENAMES', 'blacksail', 'AND', '&', d)}"
LICENSE = "%s"

LIC_FILES_CHKSUM = "\
%s"
`, strings.Join(slices.Sorted(maps.Keys(ids)), " ${UPDATERD_AND} "), list.String()), nil
}

// findTexts notes the licences of a package: those in its directory, and in all
// above it in its module, of which "go mod vendor" keeps copies. LICENSE.docs is
// about documents, which are not linked.
func findTexts(texts map[string]string, importPath, dir, module, root string) error {
	for {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		found := false
		for _, e := range entries {
			if e.Type().IsRegular() && licenceFile.MatchString(e.Name()) && e.Name() != "LICENSE.docs" {
				texts[path.Join("vendor", importPath, e.Name())] = filepath.Join(dir, e.Name())
				found = true
			}
		}
		if importPath == module {
			if !found && !slices.ContainsFunc(slices.Collect(maps.Keys(texts)), func(p string) bool { return strings.HasPrefix(p, "vendor/"+module+"/") }) {
				return fmt.Errorf("module %s has no licence", module)
			}
			return nil
		}
		importPath, dir = path.Dir(importPath), filepath.Dir(dir)
		if len(dir) < len(root) {
			return fmt.Errorf("package below %s is not in its module %s", importPath, module)
		}
	}
}

var licenceFile = regexp.MustCompile(`^(LICEN[CS]E|COPYING|COPYRIGHT)([-.]|$)`)

// phrases tell a licence from the others. A text may hold several.
var phrases = []struct{ id, has, hasNot string }{
	{"Apache-2.0", "Apache License Version 2.0", ""},
	{"Apache-2.0", "Licensed under the Apache License, Version 2.0", ""},
	{"BSD-3-Clause", "Neither the name of", ""},
	{"BSD-3-Clause", "names of its contributors may be used to endorse", ""},
	{"BSD-2-Clause", "Redistribution and use in source and binary forms", "to endorse or promote products"},
	{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee", ""},
	{"ISC", "Permission to use, copy, modify, and distribute this software for any purpose with or without fee", ""},
	{"MIT", "Permission is hereby granted, free of charge, to any person obtaining a copy", ""},
	{"MPL-2.0", "Mozilla Public License", ""},
	{"Unlicense", "This is free and unencumbered software released into the public domain", ""},
}

func identify(text string) (ids []string) {
	text = strings.Join(strings.Fields(text), " ")
	for _, p := range phrases {
		if strings.Contains(text, p.has) && (p.hasNot == "" || !strings.Contains(text, p.hasNot)) && !slices.Contains(ids, p.id) {
			ids = append(ids, p.id)
		}
	}
	slices.SortFunc(ids, cmp.Compare[string])
	return ids
}
