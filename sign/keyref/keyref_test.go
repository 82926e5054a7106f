// SPDX-License-Identifier: Apache-2.0

package keyref

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/handler"

	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli/clitest"
)

func TestMain(m *testing.M) { clitest.Main(m, "sigstore-kms-test", plugin) }

const testType = "text/plain"

// checkSigns opens the key and signs, and verifies as a device does that this is
// the public half.
func checkSigns(t *testing.T, ref string, pub crypto.PublicKey) {
	t.Helper()
	s, err := Load(context.Background(), ref, Secret{})
	if err != nil {
		t.Fatal(err)
	}
	checkSigner(t, s, pub)
}

func checkSigner(t *testing.T, s sign.Signer, pub crypto.PublicKey) {
	t.Helper()
	env, err := sign.Seal(testType, []byte("payload"), s)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := sign.NewKeyring(pub)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ring.Policy(1).Verify(env, testType, time.Time{}, func([]byte) (sign.Claims, error) { return sign.Claims{}, nil })
	if err != nil {
		t.Fatal(err)
	}
	if id, err := sign.KeyID(pub); err != nil || s.KeyID() != id || v.KeyIDs[0] != id {
		t.Errorf("key ids %s and %v, want %s, %v", s.KeyID(), v.KeyIDs, id, err)
	}
}

// checkRefuses wants each of these in the error, of whatever fails first.
func checkRefuses(t *testing.T, ref string, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	s, err := Load(ctx, ref, Secret{})
	if err == nil {
		_, err = sign.Seal(testType, []byte("payload"), s)
	}
	if err == nil {
		t.Fatalf("%s signs", ref)
	}
	for _, w := range append(want, ref) {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %v; want %q", ref, err, w)
		}
	}
}

func newEC(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func derOf(t *testing.T, pub crypto.PublicKey) []byte {
	t.Helper()
	b, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFile(t *testing.T) {
	private, public, err := sign.GenerateKey(sign.Ed25519, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "release.key")
	if err := os.WriteFile(path, private, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Load(context.Background(), path, Secret{Ask: func() ([]byte, error) { return []byte("secret"), nil }})
	if err != nil {
		t.Fatal(err)
	}
	pub, err := sign.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := sign.KeyID(pub); err != nil || s.KeyID() != id {
		t.Errorf("key id %s, want %s, %v", s.KeyID(), id, err)
	}
	checkRefuses(t, path, "passphrase needed")
	checkRefuses(t, path+"x", "no such file")
}

// vault speaks the part of Vault's transit API that signing takes, over the
// network, with a key of its own.
func vault(t *testing.T, key crypto.Signer) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := func(data any) { _ = json.NewEncoder(w).Encode(map[string]any{"data": data}) }
		switch path := strings.TrimPrefix(r.URL.Path, "/v1/transit/"); {
		case r.Header.Get("X-Vault-Token") != "token":
			http.Error(w, `{"errors":["permission denied"]}`, http.StatusForbidden)
		case path == "keys/release":
			name, text := "P-256", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: derOf(t, key.Public())}))
			if pub, ok := key.Public().(ed25519.PublicKey); ok {
				name, text = "ed25519", base64.StdEncoding.EncodeToString(pub)
			}
			answer(map[string]any{"latest_version": 1, "keys": map[string]any{"1": map[string]any{"name": name, "public_key": text}}})
		case strings.HasPrefix(path, "sign/release"):
			var request struct {
				Input     []byte `json:"input"`
				Prehashed bool   `json:"prehashed"`
			}
			if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
				t.Error(err)
			}
			hash := crypto.Hash(0)
			if request.Prehashed {
				hash = crypto.SHA256
			}
			sig, err := key.Sign(rand.Reader, request.Input, hash)
			if err != nil {
				t.Error(err)
			}
			answer(map[string]any{"signature": "vault:v1:" + base64.StdEncoding.EncodeToString(sig)})
		default:
			http.Error(w, `{"errors":[]}`, http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("VAULT_ADDR", server.URL)
	t.Setenv("VAULT_TOKEN", "token")
	t.Setenv("VAULT_MAX_RETRIES", "0")
}

func TestVault(t *testing.T) {
	ec := newEC(t, elliptic.P256())
	vault(t, ec)
	checkSigns(t, "hashivault://release", ec.Public())
	checkSigns(t, "openbao://release", ec.Public())
	checkRefuses(t, "hashivault://none", "could not read data", "VAULT_ADDR and VAULT_TOKEN")
	t.Setenv("VAULT_TOKEN", "stolen")
	checkRefuses(t, "hashivault://release", "permission denied", "VAULT_ADDR and VAULT_TOKEN")
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1")
	checkRefuses(t, "hashivault://release", "connection refused", "VAULT_ADDR and VAULT_TOKEN")
	t.Setenv("VAULT_ADDR", "")
	checkRefuses(t, "hashivault://release", "VAULT_ADDR or BAO_ADDR is not set")

	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	vault(t, ed)
	checkSigns(t, "hashivault://release", ed.Public())
	vault(t, newEC(t, elliptic.P384()))
	checkRefuses(t, "hashivault://release", "ECDSA on another curve than P-256")
}

// aws speaks the part of AWS KMS that signing takes.
func aws(t *testing.T, spec string, key crypto.Signer) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request struct {
			KeyID   string `json:"KeyId"`
			Message []byte
		}
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if request.KeyID != "alias/release" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintln(w, `{"__type":"NotFoundException","message":"Alias is not found."}`)
			return
		}
		var answer any
		switch _, method, _ := strings.Cut(r.Header.Get("X-Amz-Target"), "."); method {
		case "GetPublicKey":
			answer = map[string]any{"KeyId": request.KeyID, "PublicKey": derOf(t, key.Public()), "SigningAlgorithms": []string{spec}}
		case "DescribeKey":
			answer = map[string]any{"KeyMetadata": map[string]any{"KeyId": request.KeyID, "SigningAlgorithms": []string{spec}}}
		case "Sign":
			sig, err := key.Sign(rand.Reader, request.Message, crypto.SHA256)
			if err != nil {
				t.Error(err)
			}
			answer = map[string]any{"KeyId": request.KeyID, "Signature": sig, "SigningAlgorithm": spec}
		default:
			t.Errorf("method %q", method)
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL_KMS", server.URL)
	t.Setenv("AWS_REGION", "eu-central-1")
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
}

func TestAWS(t *testing.T) {
	ec := newEC(t, elliptic.P256())
	aws(t, "ECDSA_SHA_256", ec)
	checkSigns(t, "awskms:///alias/release", ec.Public())
	checkRefuses(t, "awskms:///alias/none", "NotFoundException", "AWS_REGION")
	t.Setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1")
	checkRefuses(t, "awskms:///alias/release", "connection refused", "AWS_REGION")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	aws(t, "RSASSA_PKCS1_V1_5_SHA_256", rsaKey)
	checkRefuses(t, "awskms:///alias/release", "use ECDSA P-256 or Ed25519")
}

// Each reference gets to the client of its service, and an error says what to do.
func TestServices(t *testing.T) {
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "/none.json")
	t.Setenv("AZURE_TENANT_ID", "tenant")
	t.Setenv("AZURE_CLIENT_ID", "client")
	t.Setenv("AZURE_CLIENT_SECRET", "secret")
	for ref, want := range map[string][]string{
		"awskms://release":         {"awskms://[ENDPOINT]/[ID/ALIAS/ARN]", "AWS_REGION"},
		"gcpkms://release":         {"gcpkms://projects/[PROJECT_ID]", "GOOGLE_APPLICATION_CREDENTIALS"},
		"azurekms://release":       {"azurekms://[VAULT_NAME][VAULT_URL]", "AZURE_TENANT_ID"},
		"hashivault://a/b":         {"hashivault://<key>", "VAULT_ADDR"},
		"azurekms://127.0.0.1:1/k": {"127.0.0.1:1", "AZURE_TENANT_ID"},
		"gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k": {"none.json", "roles/cloudkms.signerVerifier"},
		"nonekms://release": {"no such service is built in", "sigstore-kms-nonekms"},
	} {
		checkRefuses(t, ref, want...)
	}
}

// plugin is the program sigstore-kms-test: its keys are in files, whose names are
// the references. Some of them answer what they should not.
func plugin() {
	args, err := handler.GetPluginArgs(os.Args)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	switch args.InitOptions.KeyResourceID {
	case "empty":
		fmt.Print("{}")
		return
	case "garbage":
		fmt.Print("no JSON")
		return
	case "crash":
		os.Exit(70)
	}
	pemBytes, err := os.ReadFile(args.InitOptions.KeyResourceID)
	if err != nil {
		_ = handler.WriteErrorResponse(os.Stdout, err)
		return
	}
	block, _ := pem.Decode(pemBytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		panic(err)
	}
	sv, err := signature.LoadSignerVerifier(key, args.InitOptions.HashFunc)
	if err != nil {
		panic(err)
	}
	_, _ = handler.Dispatch(os.Stdout, os.Stdin, args, service{sv})
}

type service struct{ signature.SignerVerifier }

func (service) CreateKey(context.Context, string) (crypto.PublicKey, error) {
	return nil, errors.ErrUnsupported
}

func (service) CryptoSigner(context.Context, func(error)) (crypto.Signer, crypto.SignerOpts, error) {
	return nil, nil, errors.ErrUnsupported
}
func (service) SupportedAlgorithms() []string { return nil }
func (service) DefaultAlgorithm() string      { return "" }

func TestPlugin(t *testing.T) {
	write := func(key crypto.Signer) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ec := newEC(t, elliptic.P256())
	path := write(ec)
	checkSigns(t, "test://"+path, ec.Public())
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	checkSigns(t, "test://"+write(ed), ed.Public())
	checkRefuses(t, "test://"+write(newEC(t, elliptic.P521())), "another curve")
	checkRefuses(t, "test:///none", "no such file")
	checkRefuses(t, "test://empty", "the answer makes no sense")
	checkRefuses(t, "test://garbage", "parsing plugin response")
	checkRefuses(t, "test://crash", "parsing plugin response")

	// Another key behind the name, between the two questions.
	s, err := Load(context.Background(), "test://"+path, Secret{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(write(newEC(t, elliptic.P256())))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, other, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sign.Seal(testType, []byte("payload"), s); !errors.Is(err, sign.ErrUntrusted) {
		t.Errorf("signed by another key: %v", err)
	}
	// Nothing but ASCII letters, digits and dashes names a program.
	if _, err := Load(context.Background(), "../test://x", Secret{}); err == nil || !strings.Contains(err.Error(), "kind of key reference") {
		t.Errorf("a path for a name: %v", err)
	}
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Load(ctx, "test:///none", Secret{}); !errors.Is(err, context.Canceled) {
		t.Errorf("after an interrupt: %v", err)
	}
}
