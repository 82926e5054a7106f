// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that docs/security.md names for an attack is there, under that name.
func TestAttacksOfTheSecurityPageAreTried(t *testing.T) {
	page, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## Attacks\n")
	table, _, _ = strings.Cut(table, "\n## ")
	named := regexp.MustCompile("`([^`]*)`")
	rows := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 4 || strings.Contains(line, "---") || strings.Contains(line, "| test |") {
			continue
		}
		rows++
		dir, tests := "", 0
		for _, m := range named.FindAllStringSubmatch(cells[2], -1) {
			if !strings.HasPrefix(m[1], "Test") {
				dir = m[1]
				continue
			}
			tests++
			name, sub, _ := strings.Cut(m[1], "/")
			code := testsOf(t, dir)
			if !strings.Contains(code, "\nfunc "+name+"(t *testing.T)") {
				t.Errorf("%s: %s has no test %s", strings.TrimSpace(cells[1]), dir, name)
			}
			if !strings.Contains(code, `"`+sub+`"`) && sub != "" {
				t.Errorf("%s: %s has no subtest %q", strings.TrimSpace(cells[1]), dir, sub)
			}
		}
		if tests == 0 {
			t.Errorf("no test is named for: %s", strings.TrimSpace(cells[1]))
		}
	}
	if rows < 15 {
		t.Errorf("the table has %d rows", rows)
	}
}

// testsOf is the source of all tests in a directory.
func testsOf(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
	if err != nil || len(files) == 0 || dir == "" {
		t.Fatalf("tests in %q: %v, %v", dir, files, err)
	}
	var all strings.Builder
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}
