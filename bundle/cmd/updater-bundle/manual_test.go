// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/docs/manual"
)

func TestGenerated(t *testing.T) {
	p := manual.Read("updater-bundle", 1, "make the signed file of a release, and check and try such files", func(args ...string) string {
		var out strings.Builder
		c := newCommand()
		c.Stdout, c.Stderr = &out, &out
		c.Run(context.Background(), c.commands(), args)
		return out.String()
	})
	p.SeeAlso = []string{"updater-sign(1)", "updaterctl(1)"}
	manual.Check(t, map[string]string{
		"../../../docs/man/updater-bundle.1":      manual.Page(p),
		"../../../docs/completion/updater-bundle": manual.Completion(p),
	})
}
