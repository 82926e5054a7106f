// SPDX-License-Identifier: Apache-2.0

package keyref

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/gcp"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// azure is a Key Vault with one key, and what gives out tokens for it.
func azure(t *testing.T, key *ecdsa.PrivateKey) (host string) {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"access_token":"token","expires_on":"%d","token_type":"Bearer"}`, time.Now().Add(time.Hour).Unix())
	}))
	t.Cleanup(tokens.Close)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Header.Get("Authorization") != "Bearer token":
			// The client wants a domain above that of the vault.
			_, domain, _ := strings.Cut(r.Host, ".")
			w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.invalid/tenant", resource="https://`+domain+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		case !strings.HasPrefix(r.URL.Path, "/keys/release/"):
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error":{"code":"KeyNotFound","message":"not here"}}`)
		case strings.HasSuffix(r.URL.Path, "/sign"):
			var request struct{ Alg, Value string }
			if err := json.NewDecoder(r.Body).Decode(&request); err != nil || request.Alg != "ES256" {
				t.Errorf("%+v, %v", request, err)
			}
			digest, err := base64.RawURLEncoding.DecodeString(request.Value)
			if err != nil {
				t.Error(err)
			}
			x, y, err := ecdsa.Sign(rand.Reader, key, digest)
			if err != nil {
				t.Error(err)
			}
			raw := make([]byte, 64)
			x.FillBytes(raw[:32])
			y.FillBytes(raw[32:])
			fmt.Fprintf(w, `{"kid":"https://%s/keys/release/1","value":%q}`, r.Host, encode(raw))
		default:
			point, err := key.PublicKey.Bytes()
			if err != nil {
				t.Error(err)
			}
			n := len(point) / 2
			fmt.Fprintf(w, `{"key":{"kid":"https://%s/keys/release/1","kty":"EC-HSM","crv":%q,"x":%q,"y":%q}}`,
				r.Host, key.Params().Name, encode(point[1:1+n]), encode(point[1+n:]))
		}
	}))
	t.Cleanup(server.Close)
	// The first test of this process that asks for the system's certificates: they
	// are read once.
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", roots)
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	t.Setenv("IDENTITY_ENDPOINT", tokens.URL)
	t.Setenv("IDENTITY_HEADER", "secret")
	return server.Listener.Addr().String()
}

func TestAzure(t *testing.T) {
	ec := newEC(t, elliptic.P256())
	host := azure(t, ec)
	checkSigns(t, "azurekms://"+host+"/release", ec.Public())
	checkRefuses(t, "azurekms://"+host+"/none", "KeyNotFound", "AZURE_TENANT_ID")
	checkRefuses(t, "azurekms://"+azure(t, newEC(t, elliptic.P384()))+"/release", "another curve than P-256")
}

// google is a Cloud KMS with one key.
type google struct {
	kmspb.UnimplementedKeyManagementServiceServer
	key       crypto.Signer
	algorithm kmspb.CryptoKeyVersion_CryptoKeyVersionAlgorithm
	public    []byte
}

func (g *google) GetCryptoKey(context.Context, *kmspb.GetCryptoKeyRequest) (*kmspb.CryptoKey, error) {
	return &kmspb.CryptoKey{Purpose: kmspb.CryptoKey_ASYMMETRIC_SIGN}, nil
}

func (g *google) ListCryptoKeyVersions(_ context.Context, r *kmspb.ListCryptoKeyVersionsRequest) (*kmspb.ListCryptoKeyVersionsResponse, error) {
	return &kmspb.ListCryptoKeyVersionsResponse{CryptoKeyVersions: []*kmspb.CryptoKeyVersion{{Name: r.Parent + "/cryptoKeyVersions/1", Algorithm: g.algorithm}}}, nil
}

func (g *google) GetPublicKey(context.Context, *kmspb.GetPublicKeyRequest) (*kmspb.PublicKey, error) {
	return &kmspb.PublicKey{Pem: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: g.public}))}, nil
}

func (g *google) AsymmetricSign(_ context.Context, r *kmspb.AsymmetricSignRequest) (*kmspb.AsymmetricSignResponse, error) {
	sig, err := g.key.Sign(rand.Reader, r.Digest.GetSha256(), crypto.SHA256)
	sum := crc32.Checksum(sig, crc32.MakeTable(crc32.Castagnoli))
	return &kmspb.AsymmetricSignResponse{Signature: sig, VerifiedDigestCrc32C: true, SignatureCrc32C: wrapperspb.Int64(int64(sum))}, err
}

func TestGoogle(t *testing.T) {
	const ref = "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/release"
	serve := func(g *google) []signature.RPCOption {
		g.public = derOf(t, g.key.Public())
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		kmspb.RegisterKeyManagementServiceServer(server, g)
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(server.Stop)
		var opts []signature.RPCOption
		for _, o := range []option.ClientOption{
			option.WithEndpoint(listener.Addr().String()), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		} {
			opts = append(opts, gcp.WithGoogleAPIClientOption(o))
		}
		return opts
	}
	ec := newEC(t, elliptic.P256())
	s, err := load(context.Background(), ref, ref, serve(&google{key: ec, algorithm: kmspb.CryptoKeyVersion_EC_SIGN_P256_SHA256})...)
	if err != nil {
		t.Fatal(err)
	}
	checkSigner(t, s, ec.Public())
	_, err = load(context.Background(), ref, ref, serve(&google{key: newEC(t, elliptic.P384()), algorithm: kmspb.CryptoKeyVersion_EC_SIGN_P384_SHA384})...)
	if err == nil || !strings.Contains(err.Error(), "another curve than P-256") || !strings.Contains(err.Error(), ref) {
		t.Errorf("a P-384 key: %v", err)
	}
}
