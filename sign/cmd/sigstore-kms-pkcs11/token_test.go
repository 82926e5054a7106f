// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli/clitest"
	"github.com/updaterd/updaterd/sign/keyref"
)

// The tests find this program in PATH, as updater-sign does.
func TestMain(m *testing.M) { clitest.Main(m, "sigstore-kms-pkcs11", main) }

const (
	softHSM  = "/usr/lib/softhsm/libsofthsm2.so"
	testPIN  = "123456"
	testType = "text/plain"
)

// newToken makes a token of SoftHSM with the label release.
func newToken(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"softhsm2-util", "pkcs11-tool"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	run(t, "softhsm2-util", "--init-token", "--free", "--label", "release", "--so-pin", "87654321", "--pin", testPIN)
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func tool(t *testing.T, args ...string) {
	t.Helper()
	run(t, "pkcs11-tool", append([]string{"--module", softHSM, "--token-label", "release", "--login", "--pin", testPIN}, args...)...)
}

func pinFile(t *testing.T, pin string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte(pin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, ref, pin string) (sign.Signer, error) {
	t.Helper()
	return keyref.Load(context.Background(), ref, keyref.Secret{File: pin})
}

// checkSigns signs, and verifies as a device does.
func checkSigns(t *testing.T, s sign.Signer) {
	t.Helper()
	env, err := sign.Seal(testType, []byte("payload"), s)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := s.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	ring, err := sign.NewKeyring(pub)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ring.Policy(1).Verify(env, testType, time.Time{}, func([]byte) (sign.Claims, error) { return sign.Claims{}, nil })
	if err != nil || string(v.Payload) != "payload" {
		t.Fatalf("verify: %v", err)
	}
	if id, err := sign.KeyID(pub); err != nil || v.KeyIDs[0] != id || s.KeyID() != id {
		t.Errorf("key ids %v, %s, of the public key %s, %v", v.KeyIDs, s.KeyID(), id, err)
	}
}

func TestToken(t *testing.T) {
	newToken(t)
	tool(t, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "signing key", "--id", "01")
	tool(t, "--keypairgen", "--key-type", "EC:edwards25519", "--label", "ed", "--id", "02")
	tool(t, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "each time", "--id", "03", "--always-auth")
	pin := pinFile(t, testPIN)
	base := "?module-path=" + softHSM
	for name, tc := range map[string]struct {
		ref, pin string
		env      string
		want     crypto.PublicKey
	}{
		"by label":               {ref: "pkcs11:token=release;object=signing%20key" + base, pin: pin, want: &ecdsa.PublicKey{}},
		"by id":                  {ref: "pkcs11:token=release;id=%01" + base, pin: pin, want: &ecdsa.PublicKey{}},
		"without a token":        {ref: "pkcs11:id=%01;object=signing%20key" + base, pin: pin, want: &ecdsa.PublicKey{}},
		"by p11-kit":             {ref: "pkcs11:token=release;id=%01", pin: pin, want: &ecdsa.PublicKey{}},
		"pin-source":             {ref: "pkcs11:id=%01" + base + "&pin-source=file:" + pin, pin: "/dev/null", want: &ecdsa.PublicKey{}},
		"pin-value":              {ref: "pkcs11:id=%01" + base + "&pin-value=" + testPIN, want: &ecdsa.PublicKey{}},
		"PIN of the environment": {ref: "pkcs11:id=%01" + base, env: testPIN, want: &ecdsa.PublicKey{}},
		"PIN for each signature": {ref: "pkcs11:id=%03" + base, pin: pin, want: &ecdsa.PublicKey{}},
		"Ed25519":                {ref: "pkcs11:token=release;object=ed" + base, pin: pin, want: ed25519.PublicKey{}},
	} {
		t.Run(name, func(t *testing.T) {
			if modules, _ := filepath.Glob("/usr/lib/*/p11-kit-proxy.so"); name == "by p11-kit" && len(modules) == 0 {
				t.Skip("p11-kit-modules is not installed")
			}
			if tc.env != "" {
				t.Setenv(pinVariable, tc.env)
			}
			s, err := load(t, tc.ref, tc.pin)
			if err != nil {
				t.Fatal(err)
			}
			checkSigns(t, s)
			pub, err := s.PublicKey()
			if err != nil {
				t.Fatal(err)
			}
			if got, want := fmt.Sprintf("%T", pub), fmt.Sprintf("%T", tc.want); got != want {
				t.Errorf("the key is a %s, want a %s", got, want)
			}
		})
	}
}

// The halves of a key may have other labels, as on a YubiKey, or there may be a
// certificate only, as on many cards.
func TestTokenFindsThePublicHalf(t *testing.T) {
	newToken(t)
	dir := t.TempDir()
	key, pub, cert := filepath.Join(dir, "key.der"), filepath.Join(dir, "pub.der"), filepath.Join(dir, "cert.der")
	run(t, "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-outform", "DER", "-out", key)
	run(t, "openssl", "pkey", "-in", key, "-inform", "DER", "-pubout", "-outform", "DER", "-out", pub)
	run(t, "openssl", "req", "-new", "-x509", "-key", key, "-keyform", "DER", "-subj", "/CN=Release", "-outform", "DER", "-out", cert)
	tool(t, "--write-object", key, "--type", "privkey", "--label", "Private key for Digital Signature", "--id", "02")
	ref := "pkcs11:object=Private%20key%20for%20Digital%20Signature?module-path=" + softHSM
	pin := pinFile(t, testPIN)
	if _, err := load(t, ref, pin); err == nil || !strings.Contains(err.Error(), "neither a public key nor a certificate") {
		t.Errorf("no public half: %v", err)
	}
	tool(t, "--write-object", cert, "--type", "cert", "--label", "X.509 Certificate for Digital Signature", "--id", "02")
	s, err := load(t, ref, pin)
	if err != nil {
		t.Fatal(err)
	}
	checkSigns(t, s)
	tool(t, "--write-object", pub, "--type", "pubkey", "--label", "Public key for Digital Signature", "--id", "02")
	again, err := load(t, ref, pin)
	if err != nil {
		t.Fatal(err)
	}
	checkSigns(t, again)
	if s.KeyID() != again.KeyID() {
		t.Error("the certificate and the public key are of different keys")
	}
}

func TestTokenRefuses(t *testing.T) {
	newToken(t)
	tool(t, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "signing", "--id", "01")
	tool(t, "--keypairgen", "--key-type", "EC:secp384r1", "--label", "p384", "--id", "02")
	tool(t, "--keypairgen", "--key-type", "rsa:2048", "--label", "rsa", "--id", "03")
	tool(t, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "twice", "--id", "04")
	tool(t, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "twice", "--id", "05")
	pin := pinFile(t, testPIN)
	for ref, want := range map[string]string{
		"pkcs11:object=signing?module-path=/none.so":               "give the library of the token with module-path=",
		"pkcs11:object=signing?module-path=libm.so.6":              "it is no PKCS#11 module",
		"pkcs11:token=other;object=signing?module-path=" + softHSM: `there are: "release"`,
		"pkcs11:object=none?module-path=" + softHSM:                `token "release" has no such private key`,
		"pkcs11:object=p384?module-path=" + softHSM:                "no ECDSA key on P-256",
		"pkcs11:object=rsa?module-path=" + softHSM:                 "use ECDSA P-256 or Ed25519",
		"pkcs11:object=twice?module-path=" + softHSM:               "there are 2 such public keys; add id=",
		"pkcs11:object=signing;lable=x":                            `attribute "lable"`,
	} {
		_, err := load(t, ref, pin)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", ref, err, want)
		}
	}
	// What is wrong with the PIN shows when it is needed.
	for pin, want := range map[string]string{"654321": "the PIN is wrong", "": "first line of"} {
		s, err := load(t, "pkcs11:token=release;object=signing?module-path="+softHSM, pinFile(t, pin))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sign.Seal(testType, []byte("payload"), s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("PIN %q: %v", pin, err)
		}
	}
	// No error has the PIN in it.
	_, err := load(t, "pkcs11:object=none?pin-value=8877665544&module-path="+softHSM, "")
	if err == nil || strings.Contains(err.Error(), "8877665544") {
		t.Error(err)
	}
	t.Setenv("PATH", "/usr/bin")
	_, err = load(t, "pkcs11:object=signing?module-path="+softHSM, pin)
	if err == nil || !strings.Contains(err.Error(), "sigstore-kms-pkcs11") || !errors.Is(err, sign.ErrKey) {
		t.Errorf("no plugin: %v", err)
	}
}

// Whatever the library of a token answers is no crash.
func FuzzParsePoint(f *testing.F) {
	f.Add(uint(ckkEC), append([]byte{4, 65, 4}, bytes.Repeat([]byte{1}, 64)...))
	f.Add(uint(ckkECEdwards), append([]byte{4, 32}, bytes.Repeat([]byte{1}, 32)...))
	f.Add(uint(0), []byte{})
	f.Fuzz(func(t *testing.T, kind uint, point []byte) {
		pub, err := parsePoint(ulong(kind), point)
		if err != nil {
			return
		}
		if _, err := sign.KeyID(pub); err != nil {
			t.Fatalf("%x: %v", point, err)
		}
	})
}

func TestToASN1(t *testing.T) {
	if sig, err := toASN1(make([]byte, 96)); err == nil {
		t.Errorf("a P-384 signature becomes %x", sig)
	}
}
