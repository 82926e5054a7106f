// SPDX-License-Identifier: Apache-2.0

// Package canonical is the JSON of what is signed: there is exactly one way to
// write a value, so two readers cannot see different things in the same bytes.
//
// It is encoding/json without white space, with the members in the order of the
// struct's fields and without escapes for HTML. A member that is repeated, unknown,
// spelled in other case or out of order, a number written as 1.0, an escape that is
// not needed, a space, and anything after the end are all refused.
package canonical

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Marshal returns the one way to write v.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Unmarshal reads b into v, a pointer to a zero value, and refuses what Marshal
// would not write. The caller bounds b, and verifies it before.
func Unmarshal(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	again, err := Marshal(v)
	if err != nil {
		return err
	}
	if at := firstDifference(b, again); at >= 0 {
		return fmt.Errorf("not in canonical form at byte %d (%.24q)", at, b[min(at, len(b)):])
	}
	return nil
}

// firstDifference is -1 if a and b are equal.
func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) != len(b) {
		return min(len(a), len(b))
	}
	return -1
}
