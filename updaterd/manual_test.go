// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/updaterd/updaterd/docs/manual"
)

func TestGenerated(t *testing.T) {
	p := manual.Read("updaterd", 8, "the A/B updater of this device", func(args ...string) string {
		var out strings.Builder
		run(args, &out, &out)
		return out.String()
	})
	p.SeeAlso = []string{"updaterctl(1)", "updater-bootctl(8)", "busctl(1)", "systemctl(1)"}
	manual.Check(t, map[string]string{
		"data/man/updaterd.8":      manual.Page(p),
		"data/completion/updaterd": manual.Completion(p),
	})
}
