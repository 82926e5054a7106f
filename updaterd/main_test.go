// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/updaterd/internal/config"
)

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.toml")
	if err := os.WriteFile(good, bytes.Replace(config.DefaultFile(), []byte(`#keyring = "/etc/updaterd/keys"`), fmt.Appendf(nil, "keyring = %q", dir+"/keys"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args   string
		code   int
		stdout string // begins so
		stderr string
	}{
		{"--help", 0, "Usage: updaterd", ""},
		{"--version", 0, "updaterd unknown\n", ""},
		{"--print-config", 0, "# Configuration of updaterd", ""},
		{"check-config --config " + good, exitUnfit, "FAIL  keyring: load keyring: open " + dir + "/keys: no such file or directory\n      cure: ", "updaterd: "},
		{"check-config --json --config " + good, exitUnfit, "{\n  \"config\": \"" + good, "updaterd: "},
		{"check-config --help", 0, "Usage: updaterd check-config", ""},
		{"help check-config", 0, "Usage: updaterd check-config", ""},
		{"--json", 2, "", "updaterd: --json is for check-config\n"},
		{"check-config now", 2, "", "updaterd: \"now\" is one argument too many\n"},
		{"check-config --config " + dir + "/none", 1, "", "updaterd: read configuration: open " + dir + "/none: no such file or directory\nhint: "},
		{"--frob", 2, "", "updaterd: there is no option --frob\nhint: run \"updaterd --help\"\n"},
		{"--config", 2, "", "updaterd: --config needs a value\n"},
		{"start", 2, "", "updaterd: \"start\" is one argument too many\n"},
	} {
		var stdout, stderr strings.Builder
		code := run(strings.Fields(tc.args), &stdout, &stderr)
		if code != tc.code || !strings.HasPrefix(stdout.String(), tc.stdout) || !strings.HasPrefix(stderr.String(), tc.stderr) ||
			tc.stdout == "" && stdout.Len() > 0 || tc.stderr == "" && stderr.Len() > 0 {
			t.Errorf("%s = %d, %q, %q", tc.args, code, stdout.String(), stderr.String())
		}
	}
}
