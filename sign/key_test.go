// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const testPassphrase = "correct-horse"

func answer(s string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(s), nil }
}

// keyDir copies some test keys into a directory of their own.
func keyDir(t testing.TB, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join("testdata/keys", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestKeysMadeWithOpenSSL(t *testing.T) {
	for _, tc := range []struct {
		private, public string
		encrypted       bool
	}{
		{"openssl-p256-sec1.key", "openssl-p256.pub", false},
		{"openssl-p256-pbkdf2.key", "openssl-p256.pub", true},
		{"openssl-p256-scrypt.key", "openssl-p256.pub", true},
		{"openssl-p256-legacy.key", "openssl-p256.pub", true},
		{"openssl-ed25519.key", "openssl-ed25519.pub", true},
	} {
		t.Run(tc.private, func(t *testing.T) {
			path := filepath.Join("testdata/keys", tc.private)
			ring, err := LoadKeyring(keyDir(t, tc.public))
			if err != nil {
				t.Fatal(err)
			}
			s, err := LoadSigner(t.Context(), path, answer(testPassphrase))
			if err != nil {
				t.Fatal(err)
			}
			env, err := Seal(testType, []byte("x"), s)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ring.Verify(env, testType, 1); err != nil {
				t.Fatal(err)
			}
			if !tc.encrypted {
				return
			}
			checkNeedsPassphrase(t, path)
		})
	}
}

func checkNeedsPassphrase(t *testing.T, path string) {
	t.Helper()
	for name, pass := range map[string]func() ([]byte, error){
		"no way to ask":     nil,
		"empty":             answer(""),
		"wrong":             answer("battery-staple"),
		"the person leaves": func() ([]byte, error) { return nil, errors.New("interrupted") },
	} {
		if s, err := LoadSigner(t.Context(), path, pass); !errors.Is(err, ErrPassphrase) || s != nil {
			t.Errorf("LoadSigner, passphrase %s = %v, %v; want ErrPassphrase", name, s, err)
		}
	}
}

func TestGeneratedKeys(t *testing.T) {
	for _, algorithm := range []string{ECDSAP256, Ed25519} {
		priv, pub, err := GenerateKey(algorithm, []byte(testPassphrase))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(priv, []byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----")) {
			t.Errorf("GenerateKey(%s) with a passphrase wrote %.60s", algorithm, priv)
		}
		path := filepath.Join(t.TempDir(), "k.key")
		if err := os.WriteFile(path, priv, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := LoadSigner(t.Context(), path, answer(testPassphrase))
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParsePublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := KeyID(p); err != nil || id != s.KeyID() {
			t.Errorf("KeyID = %s, %v; want %s", id, err, s.KeyID())
		}
		checkNeedsPassphrase(t, path)
	}
	if _, _, err := GenerateKey("rsa", nil); !errors.Is(err, ErrKey) {
		t.Errorf("GenerateKey(rsa) = %v; want ErrKey", err)
	}
	if _, _, err := GenerateKey(Ed25519, []byte{}); !errors.Is(err, ErrPassphrase) {
		t.Errorf("GenerateKey with an empty passphrase = %v; want ErrPassphrase", err)
	}
}

func TestLoadSignerRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, ref := range map[string]string{
		"a KMS":          "awskms:///alias/release",
		"a public key":   "testdata/keys/openssl-p256.pub",
		"not PEM":        write("text", "hello"),
		"damaged PEM":    write("damaged", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
		"too large":      write("large", strings.Repeat("#", maxKeyFile+1)),
		"a missing file": filepath.Join(dir, "missing"),
	} {
		s, err := LoadSigner(t.Context(), ref, nil)
		if err == nil || s != nil {
			t.Errorf("LoadSigner of %s = %v, %v; want an error", name, s, err)
		} else if name != "a missing file" && !errors.Is(err, ErrKey) {
			t.Errorf("LoadSigner of %s = %v; want ErrKey", name, err)
		}
	}
}

// TestKeyringFailsClosed adds one thing to a good directory.
func TestKeyringFailsClosed(t *testing.T) {
	for _, tc := range []struct {
		name string
		add  func(t *testing.T, dir string) error
		want string // "" = accepted
	}{
		{"nothing", func(*testing.T, string) error { return nil }, ""},
		{"a readme", file("README", "These are the keys."), ""},
		{"a hidden file", file(".gitignore", "*"), ""},
		{"a directory", func(_ *testing.T, dir string) error { return os.Mkdir(filepath.Join(dir, "old"), 0o700) }, ""},
		{"the same key twice", copyOf("openssl-p256.pub", "again.pem"), ""},
		{"a private key", copyOf("openssl-p256-sec1.key", "b.pem"), "private key"},
		{"a private key under another name", copyOf("openssl-p256-pbkdf2.key", "backup"), "private key"},
		{"an empty file", file("b.pem", ""), "no PEM block"},
		{"garbage", file("b.pub", "garbage"), "no PEM block"},
		{"a P-384 key", copyOf("openssl-p384.pub", "b.pub"), "P-256"},
		{"an RSA key", copyOf("openssl-rsa.pub", "b.pub"), "rsa"},
		{"a dangling link", func(_ *testing.T, dir string) error { return os.Symlink("missing", filepath.Join(dir, "b.pem")) }, "b.pem"},
		{"a directory named like a key", func(_ *testing.T, dir string) error { return os.Mkdir(filepath.Join(dir, "b.pem"), 0o700) }, "not a regular file"},
		{"a large file", file("b.pem", strings.Repeat("#", maxKeyFile+1)), "larger"},
		{"a certificate", file("b.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "x509"},
		{"two keys in a file", func(t *testing.T, dir string) error {
			b, err := os.ReadFile("testdata/keys/openssl-p256.pub")
			if err != nil {
				return err
			}
			return file("b.pem", string(b)+string(b))(t, dir)
		}, "more than one"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := keyDir(t, "openssl-p256.pub")
			if err := tc.add(t, dir); err != nil {
				t.Fatal(err)
			}
			k, err := LoadKeyring(dir)
			if tc.want == "" {
				if err != nil || len(k.KeyIDs()) != 1 {
					t.Fatalf("LoadKeyring = %v, %v; want one key", k.KeyIDs(), err)
				}
				return
			}
			if err == nil || k != nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("LoadKeyring = %v, %v; want an error that says %q", k, err, tc.want)
			}
		})
	}
	if k, err := LoadKeyring(t.TempDir()); !errors.Is(err, ErrKey) || k != nil {
		t.Errorf("LoadKeyring of an empty directory = %v, %v; want ErrKey", k, err)
	}
	if _, err := LoadKeyring(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("LoadKeyring of a missing directory = %v; want ErrNotExist", err)
	}
	if _, err := NewKeyring(); !errors.Is(err, ErrKey) {
		t.Errorf("NewKeyring() = %v; want ErrKey", err)
	}
}

func file(name, content string) func(*testing.T, string) error {
	return func(_ *testing.T, dir string) error {
		return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600)
	}
}

func copyOf(key, name string) func(*testing.T, string) error {
	return func(_ *testing.T, dir string) error {
		b, err := os.ReadFile(filepath.Join("testdata/keys", key))
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), b, 0o600)
	}
}

func TestKeyringIsBounded(t *testing.T) {
	k := &Keyring{}
	for i := range MaxKeys + 1 {
		_, pub := newPair(t, Ed25519)
		if _, err := k.add(pub); (err != nil) != (i == MaxKeys) {
			t.Fatalf("key %d: %v", i+1, err)
		}
	}
}

// FuzzParsePublicKey looks for panics and for results beside errors.
func FuzzParsePublicKey(f *testing.F) {
	for _, name := range []string{"openssl-p256.pub", "openssl-ed25519.pub", "openssl-rsa.pub", "openssl-p384.pub"} {
		b, err := os.ReadFile(filepath.Join("testdata/keys", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		pub, err := ParsePublicKey(b)
		if err != nil {
			if pub != nil {
				t.Fatal("an error and a key")
			}
			return
		}
		if _, err := KeyID(pub); err != nil {
			t.Fatalf("accepted a key without id: %v", err)
		}
	})
}
