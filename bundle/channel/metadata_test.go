// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func sample() *Metadata {
	return &Metadata{
		Format: Format, Channel: "stable", Serial: 7, Issued: noon, Expires: noon.AddDate(0, 0, 14),
		Releases: []Release{
			{Compatible: []string{"demo-board", "demo-2"}, Version: "1.2", Sequence: 12, Digest: bundle.Sum([]byte("1.2")), URL: "1.2.upb", Size: 5},
			{Compatible: []string{"demo-board"}, Version: "1.3", Sequence: 13, Digest: bundle.Sum([]byte("1.3")), URL: "https://cdn.example/1.3.upb?key=x"},
			{Compatible: []string{"other"}, Version: "9", Sequence: 99, Digest: bundle.Sum([]byte("9")), URL: "/nine.upb"},
		},
	}
}

func signer(t testing.TB, name string) sign.Signer {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	s, err := sign.NewSigner(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// policy has the keys release and online, and the rules of text; without text both
// are believed for everything.
func policy(t testing.TB, text string) *sign.Policy {
	t.Helper()
	keyring := keyring(t, map[string]string{"release.pub": "release", "online.pub": "online"})
	if text == "" {
		return keyring.Policy(1)
	}
	p, err := sign.ParsePolicy([]byte("[signers.release]\nfile = \"release.pub\"\nnot_after = 2026-06-01T00:00:00Z\n[signers.online]\nfile = \"online.pub\"\n"+text), keyring)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// keyring maps the names of files to those of signers.
func keyring(t testing.TB, files map[string]string) *sign.Keyring {
	t.Helper()
	dir := t.TempDir()
	for file, name := range files {
		pub, err := signer(t, name).PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k, err := sign.LoadKeyring(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealAndVerify(t *testing.T) {
	b, err := Seal(sample(), signer(t, "release"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := Verify(b, policy(t, ""), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := Marshal(sample())
	if v.Serial != 7 || len(v.Releases) != 3 || v.Digest != bundle.Sum(payload) || len(v.KeyIDs) != 1 || v.KeyIDs[0] != signer(t, "release").KeyID() {
		t.Errorf("%+v", v)
	}
	shown, err := Unverified(b)
	if err != nil || shown.Serial != 7 {
		t.Errorf("Unverified: %+v, %v", shown, err)
	}
	flipped := bytes.Clone(b)
	flipped[len(flipped)/2] ^= 1
	for name, bad := range map[string][]byte{"stranger's": must(Seal(sample(), signer(t, "mallory"))), "flipped": flipped, "cut": b[:len(b)-1],
		"longer than allowed": append(bytes.Clone(b), make([]byte, MaxEnvelope)...)} {
		if v, err := Verify(bad, policy(t, ""), time.Time{}); err == nil {
			t.Errorf("%s: %+v is believed", name, v)
		}
	}
	if _, err := Verify(b, nil, time.Time{}); !errors.Is(err, sign.ErrUntrusted) {
		t.Errorf("without a policy: %v", err)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// A manifest is no channel metadata, nor the reverse, whoever signed it.
func TestPayloadTypeConfusion(t *testing.T) {
	b := must(Marshal(sample()))
	sealed := must(sign.Seal(bundle.PayloadType, b, signer(t, "release")))
	if v, err := Verify(sealed, policy(t, ""), time.Time{}); !errors.Is(err, sign.ErrPayloadType) {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := Unverified(sealed); !errors.Is(err, sign.ErrPayloadType) {
		t.Errorf("Unverified: %v", err)
	}
}

// Which rules of a policy decide: those for the class channel.metadata or for all
// classes, in this channel or in all; each of them must be met, and one must be there.
func TestRulesForChannelMetadata(t *testing.T) {
	const (
		all       = "[[rule]]\nsigners = [\"release\"]\nthreshold = 1\n"
		images    = "[[rule]]\nclasses = [\"rootfs\"]\nsigners = [\"release\"]\nthreshold = 1\n"
		metadata  = "[[rule]]\nclasses = [\"channel.metadata\"]\nsigners = [\"online\"]\nthreshold = 1\n"
		elsewhere = "[[rule]]\nclasses = [\"channel.metadata\"]\nchannels = [\"nightly\"]\nsigners = [\"online\"]\nthreshold = 1\n"
		here      = "[[rule]]\nchannels = [\"stable\"]\nsigners = [\"online\"]\nthreshold = 1\n"
	)
	for _, tc := range []struct {
		rules   string
		signers string
		ok      bool
	}{
		{all, "release", true},
		{all, "online", false},
		{images, "release", false}, // no rule covers them
		{images + metadata, "online", true},
		{images + metadata, "release", false},
		{all + metadata, "online", false}, // both rules must be met
		{all + metadata, "release", false},
		{all + metadata, "release online", true},
		{images + elsewhere, "online", false},
		{all + elsewhere, "release", true},
		{images + here, "online", true},
		{"[[rule]]\nclasses = [\"rootfs\", \"bootloader\"]\nsigners = [\"online\"]\nthreshold = 1\n", "online", false},
	} {
		var signers []sign.Signer
		for _, name := range strings.Fields(tc.signers) {
			signers = append(signers, signer(t, name))
		}
		_, err := Verify(must(Seal(sample(), signers...)), policy(t, tc.rules), time.Time{})
		if (err == nil) != tc.ok || err != nil && !errors.Is(err, sign.ErrUntrusted) {
			t.Errorf("signed by %s, under\n%s: %v", tc.signers, tc.rules, err)
		}
	}
}

// The online key of docs/security.md can sign metadata and nothing else.
func TestOnlineKeyOfTheSecurityPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(page), "<!-- file: online.toml -->\n```toml\n")
	text, _, _ = strings.Cut(text, "```")
	p, err := sign.ParsePolicy([]byte(text), keyring(t, map[string]string{"build-2026.pub": "release", "online.pub": "online"}))
	if err != nil || !found {
		t.Fatal(found, err)
	}
	for name, ok := range map[string]bool{"online": true, "release": false} {
		if _, err := Verify(must(Seal(sample(), signer(t, name))), p, time.Time{}); (err == nil) != ok {
			t.Errorf("metadata signed by %s: %v", name, err)
		}
		image := must(sign.Seal(bundle.PayloadType, []byte("{}"), signer(t, name)))
		_, err := p.Verify(image, bundle.PayloadType, time.Time{}, func([]byte) (sign.Claims, error) {
			return sign.Claims{Created: noon, Channel: "stable", Classes: []string{"rootfs"}}, nil
		})
		if (err == nil) == ok {
			t.Errorf("image signed by %s: %v", name, err)
		}
	}
}

// A key counts only while it is valid at the time that the metadata state, and at
// the time floor of the device.
func TestValidityOfKeys(t *testing.T) {
	p := policy(t, "[[rule]]\nsigners = [\"release\", \"online\"]\nthreshold = 1\n")
	late := sample()
	late.Issued, late.Expires = noon.AddDate(1, 0, 0), noon.AddDate(2, 0, 0)
	for name, tc := range map[string]struct {
		m     *Metadata
		floor time.Time
		ok    bool
	}{
		"valid":                  {sample(), time.Time{}, true},
		"valid at the floor":     {sample(), noon.AddDate(0, 1, 0), true},
		"ended before the floor": {sample(), noon.AddDate(1, 0, 0), false},
		"issued after its end":   {late, time.Time{}, false},
	} {
		_, err := Verify(must(Seal(tc.m, signer(t, "release"))), p, tc.floor)
		if (err == nil) != tc.ok || err != nil && !errors.Is(err, sign.ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No image can have the class that rules call channel metadata by: whoever may sign
// these may not sign an image by the same rule.
func TestClassIsNoImage(t *testing.T) {
	m := bundle.Manifest{Format: bundle.Format, Compatible: []string{"demo"}, Version: "1", Created: noon, Images: []bundle.Image{{Class: Class}}}
	if _, err := m.Marshal(); err == nil || !strings.Contains(err.Error(), `class "channel.metadata"`) {
		t.Errorf("an image of class %s: %v", Class, err)
	}
}

func TestRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Metadata)
		want   string
	}{
		"newer format":          {func(m *Metadata) { m.Format = 2 }, "format 2"},
		"no channel":            {func(m *Metadata) { m.Channel = "" }, "channel"},
		"channel with a slash":  {func(m *Metadata) { m.Channel = "a/b" }, "channel"},
		"serial 0":              {func(m *Metadata) { m.Serial = 0 }, "serial"},
		"ends before it begins": {func(m *Metadata) { m.Expires = m.Issued }, "not after"},
		"part of a second":      {func(m *Metadata) { m.Expires = m.Expires.Add(1) }, "expires"},
		"another zone":          {func(m *Metadata) { m.Issued = m.Issued.In(time.FixedZone("", 3600)) }, "issued"},
		"no list":               {func(m *Metadata) { m.Releases = nil }, "releases"},
		"too many releases":     {func(m *Metadata) { m.Releases = make([]Release, MaxReleases+1) }, "releases"},
		"no compatible":         {func(m *Metadata) { m.Releases[0].Compatible = nil }, "compatible"},
		"version with a space":  {func(m *Metadata) { m.Releases[0].Version = "1 2" }, "version"},
		"negative size":         {func(m *Metadata) { m.Releases[0].Size = -1 }, "size"},
		"same sequence twice":   {func(m *Metadata) { m.Releases[1].Sequence = 12 }, "two releases"},
		"no URL":                {func(m *Metadata) { m.Releases[0].URL = "" }, "URL"},
		"long URL":              {func(m *Metadata) { m.Releases[0].URL = strings.Repeat("a", MaxURL+1) }, "URL"},
		"file URL":              {func(m *Metadata) { m.Releases[0].URL = "file:///etc/passwd" }, "URL"},
		"URL of another host":   {func(m *Metadata) { m.Releases[0].URL = "//evil.example/x" }, "URL"},
		"URL with a user":       {func(m *Metadata) { m.Releases[0].URL = "https://u:p@h/x" }, "URL"},
		"URL with a fragment":   {func(m *Metadata) { m.Releases[0].URL = "x#y" }, "URL"},
		"URL without a path":    {func(m *Metadata) { m.Releases[0].URL = "https://h" }, "URL"},
		"URL with a newline":    {func(m *Metadata) { m.Releases[0].URL = "x\ny" }, "URL"},
		"opaque URL":            {func(m *Metadata) { m.Releases[0].URL = "http:x" }, "URL"},
	} {
		m := sample()
		tc.change(m)
		if _, err := Marshal(m); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want %q", name, err, tc.want)
		}
	}
	good := string(must(Marshal(sample())))
	for name, bad := range map[string]string{
		"unknown member": strings.Replace(good, `{"format"`, `{"extra":1,"format"`, 1),
		"white space":    good + "\n",
		"other case":     strings.Replace(good, `"serial"`, `"Serial"`, 1),
		"not JSON":       "x",
		"null releases":  good[:strings.Index(good, `"releases"`)] + `"releases":null}`,
	} {
		if m, err := Parse([]byte(bad)); m != nil || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	// 64 releases of the longest kind do not fit, and the builder says so.
	m := sample()
	m.Releases = nil
	for i := range MaxReleases {
		m.Releases = append(m.Releases, Release{Compatible: []string{"x"}, Version: "1", Sequence: uint64(i), URL: strings.Repeat("u", MaxURL)})
	}
	if _, err := Seal(m, signer(t, "release")); err == nil || !strings.Contains(err.Error(), "offer fewer") {
		t.Errorf("too large a file: %v", err)
	}
}

func TestBest(t *testing.T) {
	for compatible, want := range map[string]string{"demo-board": "1.3", "demo-2": "1.2", "other": "9", "none": "none"} {
		got := "none"
		if r := sample().Best(compatible); r != nil {
			got = r.Version
		}
		if got != want {
			t.Errorf("%s gets %s, want %s", compatible, got, want)
		}
	}
}

func TestAt(t *testing.T) {
	base, err := url.Parse("https://updates.example/fleet/stable.channel?token=1")
	if err != nil {
		t.Fatal(err)
	}
	for u, want := range map[string]string{
		"1.2.upb": "https://updates.example/fleet/1.2.upb", "../a/b.upb": "https://updates.example/a/b.upb",
		"/x.upb": "https://updates.example/x.upb", "http://cdn.example/x?y=z": "http://cdn.example/x?y=z",
	} {
		if got, err := (&Release{URL: u}).At(base); err != nil || got != want {
			t.Errorf("%s is at %s (%v), want %s", u, got, err, want)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	good := must(Marshal(sample()))
	f.Add(good)
	f.Add(append(bytes.Clone(good), ' '))
	f.Add([]byte(`{}`))
	f.Add([]byte(fmt.Sprintf(`{"format":1,"channel":"a","serial":1,"issued":%q,"expires":%q,"releases":[]}`, "2026-01-31T12:00:00Z", "2026-02-01T12:00:00Z")))
	base, _ := url.Parse("https://updates.example/a/b")
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			if m != nil || !errors.Is(err, ErrMalformed) {
				t.Fatalf("Parse = %v, %v; want nil and ErrMalformed", m, err)
			}
			return
		}
		again, err := Marshal(m)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("marshal: %v\n%q\n%q", err, again, b)
		}
		for i := range m.Releases {
			at, err := m.Releases[i].At(base)
			if err != nil || !strings.HasPrefix(at, "http://") && !strings.HasPrefix(at, "https://") {
				t.Fatalf("URL %q leads to %q, %v", m.Releases[i].URL, at, err)
			}
		}
	})
}
