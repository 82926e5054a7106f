// SPDX-License-Identifier: Apache-2.0

package pkcs11

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	slot := uint64(7)
	for s, want := range map[string]URI{
		"pkcs11:object=key": {Object: "key"},
		"pkcs11:token=My%20Token;id=%00%02?module-path=/usr/lib/libykcs11.so&pin-source=file:/run/pin": {
			Token: "My Token", ID: "\x00\x02", ModulePath: "/usr/lib/libykcs11.so", PINSource: "/run/pin"},
		"pkcs11:object=a;type=private?pin-source=file:///run/pin": {Object: "a", PINSource: "/run/pin"},
		"pkcs11:object=a?pin-source=pin":                          {Object: "a", PINSource: "pin"},
		"pkcs11:slot-id=7;serial=1;model=m;manufacturer=x%3b;object=%e2%82%ac?pin-value=1%2634": {
			SlotID: &slot, Serial: "1", Model: "m", Manufacturer: "x;", Object: "€", PINValue: "1&34"},
	} {
		got, err := Parse(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if diff := cmp.Diff(want, *got); diff != "" {
			t.Errorf("%s: %s", s, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for s, want := range map[string]string{
		"file:object=a":                                "is not",
		"pkcs11:":                                      "which key of the token",
		"pkcs11:token=a":                               "which key of the token",
		"pkcs11:object":                                "has no value",
		"pkcs11:object=":                               "has no value",
		"pkcs11:object=a;object=b":                     "twice",
		"pkcs11:object=a;lable=b":                      `attribute "lable" is not one of`,
		"pkcs11:object=a;":                             "has no value",
		"pkcs11:object=%zz":                            "percent-encoded",
		"pkcs11:object=a%00b":                          "percent-encoded",
		"pkcs11:object=a;slot-id=first":                "not a number",
		"pkcs11:object=a;type=cert":                    "private",
		"pkcs11:object=a?pin=1":                        `attribute "pin" is not one of`,
		"pkcs11:object=a?pin-source=%7Cget-pin":        "no program is run",
		"pkcs11:object=a?pin-source=p&pin-value=1":     "contradict",
		"pkcs11:object=" + strings.Repeat("a", maxURI): "at most",
	} {
		if u, err := Parse(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %+v, %v; want %q", s, u, err, want)
		}
	}
	// A PIN that was mistyped is in no error.
	for _, s := range []string{"pkcs11:object=a?pin-value=%secret", "pkcs11:object=a?pin-value=secret&pin-value=secret"} {
		if _, err := Parse(s); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
	}
}

// What was read is written so that it is read the same.
func FuzzParse(f *testing.F) {
	f.Add("pkcs11:token=My%20Token;id=%00%02?module-path=/usr/lib/libykcs11.so&pin-source=file:/run/pin")
	f.Add("pkcs11:slot-id=7;object=%e2%82%ac?pin-value=1%2634")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(u.String())
		if len(u.String()) > maxURI {
			return
		}
		if err != nil {
			t.Fatalf("%q becomes %q: %v", s, u, err)
		}
		if diff := cmp.Diff(u, again); diff != "" {
			t.Fatalf("%q becomes %q: %s", s, u, diff)
		}
	})
}
