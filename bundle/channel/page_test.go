// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// docs/channel.md has the keys of the format, the payload type and the limits.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/channel.md")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"`" + PayloadType + "`", fmt.Sprintf("| File, bytes | %d |", MaxEnvelope),
		fmt.Sprintf("| Releases | %d |", MaxReleases), fmt.Sprintf("| URL, bytes | %d |", MaxURL)}
	for _, of := range []reflect.Type{reflect.TypeFor[Metadata](), reflect.TypeFor[Release]()} {
		for field := range of.Fields() {
			key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			want = append(want, "| `"+key+"` |")
		}
	}
	for _, w := range want {
		if !strings.Contains(string(page), w) {
			t.Errorf("docs/channel.md does not have %q", w)
		}
	}
}
