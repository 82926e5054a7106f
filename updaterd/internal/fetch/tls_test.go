// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// privateServer serves data over TLS with a certificate of its own authority,
// valid in the year 2026, and returns the authority's PEM file.
func privateServer(t *testing.T, data []byte) (*server, string) {
	t.Helper()
	year := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	caKey, leafKey := newKey(t), newKey(t)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "private authority"},
		NotBefore: year, NotAfter: year.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: year, NotAfter: year.AddDate(1, 0, 0),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{data: data, etag: `"1"`}
	s.Server = httptest.NewUnstartedServer(s)
	s.Server.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}}}
	s.Server.StartTLS()
	t.Cleanup(s.Close)
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, path
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func at(year int) func() time.Time {
	return func() time.Time { return time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC) }
}

func TestPrivateAuthorityAndClock(t *testing.T) {
	data := pattern(1000)
	s, ca := privateServer(t, data)
	for _, c := range []struct {
		name string
		o    Options
		want string // "" = works
	}{
		{"time floor", Options{CAFile: ca, Now: at(2026)}, ""},
		{"only the private authority", Options{CAFile: ca, CAOnly: true, Now: at(2026)}, ""},
		{"clock says 1970", Options{CAFile: ca, Now: at(1970)}, "not yet valid"},
		{"expired", Options{CAFile: ca, Now: at(2028)}, "expired"},
		{"unknown authority", Options{Now: at(2026)}, "unknown authority"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Retry = quick.Retry
			got, err := read(open(t, c.o, s.URL), 10, 100)
			if c.want == "" && (err != nil || len(got) != 100) {
				t.Errorf("Range = %d bytes, %v; want 100 bytes", len(got), err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Range = %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestAuthoritiesMustBeReadable(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{CAFile: empty}, {CAFile: empty + ".missing"}, {CAOnly: true}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) succeeded", o)
		}
	}
}
