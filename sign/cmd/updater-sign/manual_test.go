// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/docs/manual"
)

func TestGenerated(t *testing.T) {
	p := manual.Read("updater-sign", 1, "make keys, and sign and verify files", func(args ...string) string {
		var out strings.Builder
		c := newCommand()
		c.Stdout, c.Stderr = &out, &out
		c.Run(context.Background(), c.commands(), args)
		return out.String()
	})
	p.SeeAlso = []string{"updater-bundle(1)"}
	manual.Check(t, map[string]string{
		"../../../docs/man/updater-sign.1":      manual.Page(p),
		"../../../docs/completion/updater-sign": manual.Completion(p),
	})
}
