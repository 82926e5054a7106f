// SPDX-License-Identifier: Apache-2.0

package update

import (
	"net/url"
	"strings"
)

// PublicRef is a reference without what may be a secret in it: everybody may
// read the properties and the results, and a signed URL carries its right in
// the query.
func PublicRef(ref string) string {
	if strings.HasPrefix(ref, "/") {
		return ref
	}
	u, err := url.Parse(ref)
	if err != nil {
		return "a bundle whose reference cannot be read"
	}
	u.User, u.Fragment = nil, ""
	if u.RawQuery != "" {
		u.RawQuery = "..."
	}
	return u.String()
}
