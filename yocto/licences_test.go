// SPDX-License-Identifier: Apache-2.0

package yocto

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/packaging/licences"
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
			want, err := include(what.packages, what.architectures, what.tags)
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

// include makes an include file from what is linked.
func include(packages, architectures []string, tags string) ([]byte, error) {
	texts, err := licences.Linked("..", tags, architectures, packages...)
	if err != nil {
		return nil, err
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
