// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"errors"
	"strings"
	"testing"
)

var samples = map[string]struct{ text, want string }{
	"SPDX 2.3":                       {`{"SPDXID":"SPDXRef-DOCUMENT","spdxVersion":"SPDX-2.3","packages":[]}`, SPDXJSON},
	"SPDX 2.3, its version last":     {`{"packages":[{"name":"a","files":[1,[2],{}]}],"spdxVersion":"SPDX-2.3"}`, SPDXJSON},
	"SPDX 3":                         {`{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[]}`, SPDXJSON},
	"SPDX tag-value":                 {"# made by hand\n\nSPDXVersion: SPDX-2.3\nDataLicense: CC0-1.0\n", SPDXText},
	"CycloneDX":                      {"\n {\"$schema\":\"x\",\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.6\"}", CycloneDXJSON},
	"CycloneDX XML":                  {`<?xml version="1.0"?><!-- c --><bom xmlns="http://cyclonedx.org/schema/bom/1.5"></bom>`, CycloneDXXML},
	"nothing":                        {"", ""},
	"white space":                    {" \n", ""},
	"other JSON":                     {`{"name":"a","dependencies":{}}`, ""},
	"JSON that breaks off":           {`{"packages":[{`, ""},
	"a JSON array":                   {`[{"bomFormat":"CycloneDX"}]`, ""},
	"the mark deeper down":           {`{"a":{"bomFormat":"CycloneDX"}}`, ""},
	"the mark as a value":            {`{"a":"bomFormat","b":"CycloneDX"}`, ""},
	"another bomFormat":              {`{"bomFormat":"Other"}`, ""},
	"a list as the version":          {`{"spdxVersion":["SPDX-2.3"]}`, ""},
	"XML of another name space":      {`<bom xmlns="urn:x"></bom>`, ""},
	"XML with another first element": {`<a><bom xmlns="http://cyclonedx.org/schema/bom/1.5"/></a>`, ""},
	"XML that breaks off":            {`<?xml version="1.0"?>`, ""},
	"text with the tag later":        {"Hello\nSPDXVersion: SPDX-2.3\n", ""},
	"an ELF file":                    {"\x7fELF\x02\x01\x01\x00", ""},
}

func TestDetect(t *testing.T) {
	for name, tc := range samples {
		got, err := Detect(strings.NewReader(tc.text))
		if got != tc.want || (err == nil) != (tc.want != "") || err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("%s: Detect = %q, %v; want %q", name, got, err, tc.want)
		}
	}
}

// A large file with its mark at the end is read through.
func TestDetectLateMark(t *testing.T) {
	text := `{"packages":[` + strings.Repeat(`{"name":"a"},`, 100_000) + `{}],"spdxVersion":"SPDX-2.3"}`
	if got, err := Detect(strings.NewReader(text)); got != SPDXJSON || err != nil {
		t.Errorf("Detect = %q, %v", got, err)
	}
}

func FuzzDetect(f *testing.F) {
	for _, tc := range samples {
		f.Add(tc.text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Detect(strings.NewReader(s))
		if (got == "") != (err != nil) {
			t.Fatalf("Detect = %q, %v", got, err)
		}
	})
}
