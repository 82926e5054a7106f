// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/updaterd/updaterd"

// sizeBudget is what the device binary (arm64, stripped) may cost, in bytes. The
// linker rounds up to 64 KiB. It was 11.0 MB before there were channels, logs,
// permits and encryption, which nothing is linked for that TLS has not brought, and
// 11.3 before check-config asked systemd.
const sizeBudget = 11_400_000

// mayImport is the direction of imports: the packages of ours below each
// directory may depend, also indirectly, on nothing of ours but themselves and
// what is listed.
var mayImport = map[string][]string{
	"sign":                      {},
	"bootctl":                   {},
	"bundle/delta":              {},
	"bundle":                    {"sign"},
	"docs/manual":               {},
	"updaterd/client":           {},
	"updaterd/ctl":              {"updaterd/client"},
	"updaterd/internal/fetch":   {},
	"updaterd/internal/config":  {},
	"updaterd/internal/check":   {"bootctl", "bundle", "sign"},
	"updaterd/internal/update":  {"bootctl"},
	"updaterd/internal/health":  {"updaterd/internal/update", "bootctl"},
	"updaterd/internal/install": {"updaterd/internal/update", "bootctl", "bundle", "sign"},
	"updaterd/internal/poll":    {"updaterd/internal/update", "bootctl", "bundle", "sign"},
	"updaterd/internal/server":  {"updaterd/internal/update", "bootctl"},
	"qemu":                      {"updaterd/client", "bundle", "sign", "bootctl"},
}

func TestImportsPointOneWay(t *testing.T) {
	for dir, allowed := range mayImport {
		for _, tags := range []string{"", "qemu"} {
			format := `{{.ImportPath}}{{range .Deps}} {{.}}{{end}}`
			out, err := exec.Command("go", "list", "-tags", tags, "-f", format, module+"/"+dir+"/...").Output()
			if err != nil {
				t.Fatalf("go list %s: %v", dir, err)
			}
			for line := range strings.Lines(string(out)) {
				pkgs := strings.Fields(line)
				for _, dep := range pkgs[1:] {
					ours, found := strings.CutPrefix(dep, module+"/")
					if found && !slices.ContainsFunc(append(allowed, dir), func(a string) bool { return ours == a || strings.HasPrefix(ours, a+"/") }) {
						t.Errorf("%s depends on %s, which packages below %s must not", pkgs[0], ours, dir)
					}
				}
			}
		}
	}
}

// TestDeviceBinaryStaysOutOfTheClouds: key services, signing and the making of
// manuals belong to build hosts.
func TestDeviceBinaryStaysOutOfTheClouds(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", module+"/updaterd").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, unwanted := range []string{"updaterd/sign/cli", "updaterd/sign/keyref", "docs/manual", "/kms/", "purego", "aws-sdk", "cloud.google.com", "azure", "hashicorp", "google.golang.org/grpc"} {
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, unwanted) {
				t.Errorf("the device binary depends on %s", strings.TrimSpace(line))
			}
		}
	}
}

// TestToolsStayStatic: only a dynamic program can load the library of a token, and
// only sigstore-kms-pkcs11 is one.
func TestToolsStayStatic(t *testing.T) {
	for _, tool := range []string{"sign/cmd/updater-sign", "bundle/cmd/updater-bundle"} {
		out, err := exec.Command("go", "list", "-deps", module+"/"+tool).Output()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(out, []byte("ebitengine/purego")) {
			t.Errorf("%s depends on purego, which makes it a dynamic program", tool)
		}
		if !bytes.Contains(out, []byte("signature/kms/aws")) {
			t.Errorf("%s has no client of AWS KMS, so this test looks at the wrong program", tool)
		}
	}
}

func TestDeviceBinaryFitsItsBudgetAndIsStatic(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "updaterd")
	build := exec.Command("make", "-C", "..", "device", "ARCH=arm64", "OUT="+binary)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	// go test shows this line with -v only; make cross prints the size of every architecture.
	fmt.Printf("device binary, arm64, stripped: %d bytes of at most %d\n", len(data), sizeBudget)
	if len(data) > sizeBudget {
		t.Errorf("the device binary has %d bytes, more than its budget of %d", len(data), sizeBudget)
	}
	if bytes.Contains(data, []byte("/lib/ld-linux-aarch64.so.1")) {
		t.Error("the device binary names a dynamic loader: it is not static")
	}
}
