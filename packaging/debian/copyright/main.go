// SPDX-License-Identifier: Apache-2.0

// Copyright prints the licences of what is linked into programs, for the
// copyright file of their Debian package:
//
//	copyright TAGS GOARCH PACKAGE...
package main

import (
	"fmt"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/updaterd/updaterd/packaging/licences"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: copyright TAGS GOARCH PACKAGE...")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "copyright:", err)
		os.Exit(1)
	}
}

func run(tags, arch string, packages []string) error {
	files, err := licences.Linked(".", tags, []string{arch}, packages...)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text, err := os.ReadFile(files[name])
		if err != nil {
			return err
		}
		module := strings.TrimPrefix(path.Dir(name), "vendor/")
		fmt.Printf("\n---- %s, %s\n\n%s\n", module, path.Base(name), terms(string(text)))
	}
	return nil
}

// apache is the licence up to the end of its last section.
var apache = regexp.MustCompile(`(?s)[ \t]*Apache License\s+Version 2\.0.*?accepting any such warranty or additional liability\.(\s*END OF TERMS AND CONDITIONS)?`)

// terms is a licence without what is on every Debian system, which its policy wants
// not to be repeated.
func terms(text string) string {
	text = apache.ReplaceAllString(text, "Apache-2.0; on Debian systems, the text is in /usr/share/common-licenses/Apache-2.0.")
	return strings.TrimRight(text, "\n")
}
