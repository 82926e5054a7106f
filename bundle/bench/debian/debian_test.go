// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	const debian = "Debian|bookworm|main|http://deb.example/debian/\n"
	const security = "Debian|bookworm-security|main|http://deb.example/debian-security/\n"
	tests := []struct {
		name, targets string
		want          []Source
	}{
		{"all", security + debian, []Source{{"http://deb.example/debian/", "bookworm"}, {"http://deb.example/debian-security/", "bookworm-security"}}},
		{"only the release", debian, []Source{{"http://deb.example/debian/", "bookworm"}}},
		{"the first mirror counts", debian + strings.ReplaceAll(debian, "deb.", "other."), []Source{{"http://deb.example/debian/", "bookworm"}}},
		{"no lists yet", strings.Replace(debian, "Debian|", "$(ORIGIN)|", 1), []Source{{"http://deb.example/debian/", "bookworm"}}},
		{"others", "Docker|bookworm|main|http://docker.example/\nDebian|trixie|main|http://deb.example/\nDebian|bookworm|contrib|http://x.example/\n" + debian,
			[]Source{{"http://deb.example/debian/", "bookworm"}}},
		{"none", security, nil},
		{"not understood", "x\n", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parse(test.targets)
			if (err == nil) != (test.want != nil) || !cmp.Equal(got, test.want) {
				t.Errorf("parse = %v, %v; want %v", got, err, test.want)
			}
		})
	}
}

func TestList(t *testing.T) {
	all := []Source{{"http://a.example/", "bookworm"}, {"http://b.example/", "bookworm-security"}}
	want := "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://a.example/ bookworm main\n"
	if got := List("deb-src", all, Main, Updates); got != want {
		t.Errorf("List of the release = %q, want %q", got, want)
	}
	if n := strings.Count(List("deb", all, Main, Security), "\n"); n != 2 {
		t.Errorf("List with security has %d archives, want 2", n)
	}
}
