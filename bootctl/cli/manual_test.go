// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"

	"github.com/updaterd/updaterd/docs/manual"
)

func TestGenerated(t *testing.T) {
	p := manual.Read("updater-bootctl", 8, "show and change what the bootloader starts", func(args ...string) string {
		var out strings.Builder
		Run("", args, &out, &out)
		return out.String()
	})
	p.SeeAlso = []string{"updaterd(8)", "updaterctl(1)", "fw_printenv(1)"}
	manual.Check(t, map[string]string{
		"../../updaterd/data/man/updater-bootctl.8":      manual.Page(p),
		"../../updaterd/data/completion/updater-bootctl": manual.Completion(p),
	})
}
