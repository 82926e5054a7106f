// SPDX-License-Identifier: Apache-2.0

package update

import "testing"

func TestReferencesAreShownWithoutSecrets(t *testing.T) {
	for ref, want := range map[string]string{
		"https://u:p@host:8/a/b.upb?token=s&x=1#f": "https://host:8/a/b.upb?...",
		"http://host/b.upb":                        "http://host/b.upb",
		"/data/b?x=1.upb":                          "/data/b?x=1.upb",
		"https://host/%zz?token=s":                 "a bundle whose reference cannot be read",
	} {
		if got := PublicRef(ref); got != want {
			t.Errorf("PublicRef(%q) = %q, want %q", ref, got, want)
		}
	}
}
