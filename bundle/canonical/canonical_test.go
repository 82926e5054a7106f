// SPDX-License-Identifier: Apache-2.0

package canonical_test

import (
	"testing"

	"github.com/updaterd/updaterd/bundle/canonical"
)

type value struct {
	Name  string `json:"name"`
	Count uint64 `json:"count,omitempty"`
}

func TestOneWay(t *testing.T) {
	const want = `{"name":"a<b","count":3}`
	b, err := canonical.Marshal(value{"a<b", 3})
	if err != nil || string(b) != want {
		t.Fatalf("%s, %v; want %s", b, err, want)
	}
	var v value
	if err := canonical.Unmarshal(b, &v); err != nil || v != (value{"a<b", 3}) {
		t.Fatalf("%+v, %v", v, err)
	}
	for name, other := range map[string]string{
		"repeated":      `{"name":"x","name":"a<b","count":3}`,
		"unknown":       `{"name":"a<b","count":3,"more":1}`,
		"other case":    `{"Name":"a<b","count":3}`,
		"out of order":  `{"count":3,"name":"a<b"}`,
		"1.0":           `{"name":"a<b","count":3.0}`,
		"escape":        `{"name":"a\u003cb","count":3}`,
		"space":         `{"name": "a<b","count":3}`,
		"line at end":   want + "\n",
		"more":          want + want,
		"cut":           want[:len(want)-1],
		"explicit zero": `{"name":"a<b","count":0}`,
		"nothing":       ``,
	} {
		if err := canonical.Unmarshal([]byte(other), new(value)); err == nil {
			t.Errorf("%s: %s is accepted", name, other)
		}
	}
}
