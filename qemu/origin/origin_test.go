// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

func start(t *testing.T, cert *tls.Certificate) (*Server, []byte) {
	t.Helper()
	dir := t.TempDir()
	content := bytes.Repeat([]byte("0123456789"), 100_000)
	if err := os.WriteFile(filepath.Join(dir, "f"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Start(dir, cert)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, content
}

func get(t *testing.T, client *http.Client, url, byteRange string) ([]byte, error) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

func TestServesRangesAndCounts(t *testing.T) {
	s, content := start(t, nil)
	got, err := get(t, http.DefaultClient, s.URL("127.0.0.1", "f"), "bytes=1000-1999")
	if err != nil || !bytes.Equal(got, content[1000:2000]) {
		t.Fatalf("range: %d bytes, %v", len(got), err)
	}
	log := s.Requests()
	if len(log) != 1 || log[0].Sent != 1000 || log[0].From != 1000 || log[0].Status != http.StatusPartialContent {
		t.Fatalf("log = %+v", log)
	}
}

func TestCutsAnAnswerAfterItsBytes(t *testing.T) {
	s, content := start(t, nil)
	s.CutAfter(5000)
	got, err := get(t, http.DefaultClient, s.URL("127.0.0.1", "f"), "bytes=10-")
	if err == nil || !bytes.Equal(got, content[10:5010]) {
		t.Fatalf("cut answer: %d bytes, error %v; want 5000 and an error", len(got), err)
	}
	if got, err = get(t, http.DefaultClient, s.URL("127.0.0.1", "f"), "bytes=5010-"); err != nil || len(got) != len(content)-5010 {
		t.Fatalf("the answer after it: %d bytes, %v", len(got), err)
	}
	if s.Sent() != int64(len(content)-10) {
		t.Fatalf("Sent() = %d", s.Sent())
	}
}

func TestServesOverTLSWithItsOwnCA(t *testing.T) {
	cert, ca, err := Certificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	s, content := start(t, cert)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	if got, err := get(t, client, s.URL("127.0.0.1", "f"), ""); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("over TLS: %d bytes, %v", len(got), err)
	}
	if _, err := get(t, http.DefaultClient, s.URL("127.0.0.1", "f"), ""); err == nil {
		t.Fatal("a client that does not know the CA was served")
	}
}

func TestDownLinkServesNothing(t *testing.T) {
	s, _ := start(t, nil)
	s.Down(true)
	if _, err := get(t, http.DefaultClient, s.URL("127.0.0.1", "f"), ""); err == nil {
		t.Fatal("served over a link that is down")
	}
	s.Down(false)
	if _, err := get(t, http.DefaultClient, s.URL("127.0.0.1", "f"), ""); err != nil {
		t.Fatal(err)
	}
}
