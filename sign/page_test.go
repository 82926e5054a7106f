// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fenced is the block of code of docs/security.md behind a mark.
func fenced(t *testing.T, mark string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "\n<!-- "+mark+" -->\n```")
	_, rest, _ = strings.Cut(rest, "\n")
	code, _, closed := strings.Cut(rest, "\n```\n")
	if !found || !closed {
		t.Fatalf("docs/security.md has no block %q", mark)
	}
	return code + "\n"
}

// The authority that the security page makes with openssl is one that a keyring
// takes, its signer is believed, and is no longer once the list has it.
func TestAuthorityOfTheSecurityPage(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	work := t.TempDir()
	sh := exec.Command("sh", "-euc", fenced(t, "script: openssl"))
	sh.Dir = work
	sh.Env = []string{"PATH=" + filepath.Dir(openssl) + ":/usr/bin:/bin"}
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(work, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	signer, err := ParseSigner(read("signer.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	signers, err := WithChain(read("chain.pem"), []Signer{signer})
	if err != nil {
		t.Fatal(err)
	}
	_, logPub := newPair(t, ECDSAP256)
	build, buildPub := newPair(t, ECDSAP256)
	quality, qualityPub := newPair(t, Ed25519)
	files := map[string][]byte{
		"acme-root.pem": read("acme-root.pem"), "build-2026.pub": pubPEM(t, buildPub), "quality.pub": pubPEM(t, qualityPub),
		"acme-log.tlog": pubPEM(t, logPub),
	}
	env := seal(t, build, quality, signers[0])
	claims := claim(Claims{Created: time.Now(), Channel: "stable", Classes: []string{"rootfs", "bootloader"}})
	verify := func() (*Verified, error) {
		p, err := ParsePolicy([]byte(fenced(t, "file: policy.toml")), loadFiles(t, files))
		if err != nil {
			t.Fatal(err)
		}
		return p.Verify(env, testType, time.Time{}, claims)
	}
	v, err := verify()
	checkVerdict(t, v, err, "")
	files["team.crl"] = read("team.crl")
	v, err = verify()
	checkVerdict(t, v, err, "is revoked by team.crl")
	delete(files, "team.crl")
	env = seal(t, build, signers[0])
	v, err = verify()
	checkVerdict(t, v, err, "signed by 0 of the 1 signers of rule 2, channels stable, need 1")
}
