// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// script is the block of docs/signing.md behind a mark.
func script(t *testing.T, page, name string) string {
	t.Helper()
	_, rest, found := strings.Cut(page, "\n<!-- script: "+name+" -->\n```sh\n")
	code, _, closed := strings.Cut(rest, "\n```\n")
	if !found || !closed {
		t.Fatalf("docs/signing.md has no script %q", name)
	}
	return code + "\n"
}

// The commands of the signing page do what it says, at a terminal where somebody
// answers yes.
func TestSigningPage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/signing.md")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin+"/", "../../../sign/cmd/updater-sign", "../../../sign/cmd/sigstore-kms-pkcs11")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, story := range map[string]string{
		"files": `
run file
run build
run sign
stderr '^UNSIGNED'
stderr '^version +1.0$'
exec updater-bundle verify --keyring keys demo.upb
run manifest
stdout 'digest of the release: sha256:'
run offline
stderr '^  "version": "1.0",$'
rm demo.upb
run attach
run keyring
stdout '^good: version 1.0'
exec updater-bundle apply --keyring image/etc/updaterd/keys --image rootfs -o made demo.upb
cmp made rootfs.ext4
exec updater-sign keygen -o ann
exec updater-sign keygen -o bob
mkdir both ec
cp ann.pub both/ann.pub
cp bob.pub both/bob.pub
run two
exec updater-bundle verify --keyring both --threshold 2 demo.upb
exec openssl ecparam -name prime256v1 -genkey -noout -out ec.key
exec openssl pkey -in ec.key -pubout -out ec/ec.pub
run foreign
exec updater-bundle verify --keyring ec demo.upb
`,
		"token": `
[!exec:softhsm2-util] skip 'softhsm2 is not installed'
[!exec:pkcs11-tool] skip 'opensc is not installed'
mkdir tokens
env SOFTHSM2_CONF=$WORK/softhsm2.conf
run token
stdout '^good: version 1.0'
`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var lines, files strings.Builder
			for line := range strings.Lines("image rootfs.ext4 1\n" + story) {
				if block, found := strings.CutPrefix(strings.TrimSpace(line), "run "); found {
					fmt.Fprintf(&lines, "ttyin -stdin yes\nexec sh -eu %s.sh\n", block)
					fmt.Fprintf(&files, "-- %s.sh --\n%s", block, script(t, string(page), block))
					continue
				}
				lines.WriteString(line)
			}
			files.WriteString("-- yes --\nyes\nyes\n")
			files.WriteString("-- softhsm2.conf --\ndirectories.tokendir = tokens\nobjectstore.backend = file\n")
			if err := os.WriteFile(filepath.Join(dir, "page.txtar"), []byte(lines.String()+files.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			testscript.Run(t, testscript.Params{
				Dir: dir, RequireExplicitExec: true, Cmds: map[string]func(*testscript.TestScript, bool, []string){"image": image},
				Setup: func(e *testscript.Env) error {
					e.Setenv("PATH", bin+":"+e.Getenv("PATH"))
					return nil
				},
			})
		})
	}
	if n, want := strings.Count(string(page), "\n<!-- script: "), 10; n != want {
		t.Errorf("the page has %d scripts, this test runs %d", n, want)
	}
}
