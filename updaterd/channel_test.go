// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/channel"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/config"
	"github.com/updaterd/updaterd/updaterd/internal/fetch"
)

// The channel that docs/channel.md configures is fetched from a real server, over
// TLS with the authority and the keyring of the configuration.
func TestChannelOfTheConfiguration(t *testing.T) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	signer, err := sign.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	m := channel.Metadata{Format: channel.Format, Channel: "stable", Serial: 7, Issued: now, Expires: now.AddDate(0, 0, 14),
		Releases: []channel.Release{{Compatible: []string{"demo"}, Version: "2", Sequence: 20, Digest: bundle.Sum([]byte("2")), URL: "2.upb"}}}
	file, err := channel.Seal(&m, signer)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "stable.channel", now, bytes.NewReader(file))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of the device that does not know the authority
	server.StartTLS()
	defer server.Close()

	page, err := os.ReadFile("../docs/channel.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "<!-- file: updaterd.toml -->\n```toml\n")
	text, _, found := strings.Cut(text, "```")
	text = strings.Replace(text, "https://updates.example.org", server.URL, 1)
	c, err := config.Parse([]byte("compatible = \"demo\"\n" + text + "\n[slots.\"rootfs.a\"]\ndevice = \"/dev/a\"\n[slots.\"rootfs.b\"]\ndevice = \"/dev/b\"\n"))
	if err != nil || !found {
		t.Fatal(found, err)
	}
	if d := config.Defaults().Channel; c.Channel.Interval != d.Interval || c.Channel.Expired != d.Expired {
		t.Errorf("the page has %+v, the defaults are %+v", c.Channel, d)
	}
	dir := t.TempDir()
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	c.Keyring = filepath.Join(dir, "keys")
	put(t, dir, "keys/release.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	put(t, dir, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))

	look := func(ca string) (string, error) {
		source, err := openChannel(c, fetch.Options{CAFile: ca, Retry: fetch.Retry{Stall: time.Second}}, func() time.Time { return time.Time{} })
		if err != nil {
			t.Fatal(err)
		}
		if source.Name != "stable" || source.Ref != c.Channel.URL || source.RefuseExpired != (c.Channel.Expired == config.ExpiredRefuse) {
			t.Errorf("%+v", source)
		}
		m, err := source.Fetch(t.Context())
		if err != nil {
			return "", err
		}
		return m.Offer.Ref, nil
	}
	if ref, err := look(filepath.Join(dir, "ca.pem")); err != nil || ref != server.URL+"/2.upb" {
		t.Errorf("%q, %v", ref, err)
	}
	if _, err := look(""); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without the authority: %v", err)
	}
	c.Channel.Expired = config.ExpiredRefuse
	put(t, dir, "keys/release.pub", nil)
	if _, err := look(filepath.Join(dir, "ca.pem")); err == nil {
		t.Error("a keyring that cannot be read believes somebody")
	}
}
