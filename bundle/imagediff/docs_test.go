// SPDX-License-Identifier: Apache-2.0

package imagediff

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// docs/diff.md describes every finding and every field of the JSON.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/diff.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("findings.go")
	if err != nil {
		t.Fatal(err)
	}
	ids := regexp.MustCompile(`(?m)^\tFound\w+ += "([a-z-]+)"$`).FindAllStringSubmatch(string(source), -1)
	if len(ids) < 10 {
		t.Fatalf("only %d ids are found", len(ids))
	}
	for _, id := range ids {
		if !strings.Contains(string(doc), "| `"+id[1]+"` |") {
			t.Errorf("docs/diff.md has no row for the finding %s", id[1])
		}
	}
	var fields func(v reflect.Type)
	fields = func(v reflect.Type) {
		for v.Kind() == reflect.Slice {
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct {
			return
		}
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Field(i).Tag.Get("json"), ",")
			if name == "" {
				continue
			}
			if !strings.Contains(string(doc), "`"+name+"`") {
				t.Errorf("docs/diff.md does not describe the field %s", name)
			}
			fields(v.Field(i).Type)
		}
	}
	fields(reflect.TypeFor[Report]())
	for _, change := range []string{FileNew, FileChanged, FileRenamed, FileCopied, FileMetadata, FileMoved, FileUnchanged} {
		if !strings.Contains(string(doc), "`"+change+"`") {
			t.Errorf("docs/diff.md does not explain the change %q", change)
		}
	}
}
