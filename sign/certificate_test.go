// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// An issued is a certificate with its private key.
type issued struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (i *issued) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw})
}

func (i *issued) signer(t testing.TB, between ...*issued) Signer {
	t.Helper()
	s, err := NewSigner(i.key)
	if err != nil {
		t.Fatal(err)
	}
	chain := i.pem()
	for _, b := range between {
		chain = append(chain, b.pem()...)
	}
	with, err := WithChain(chain, []Signer{s})
	if err != nil {
		t.Fatal(err)
	}
	return with[0]
}

var serial int64

// issue makes a certificate; by nil it is its own issuer. change may be nil.
func issue(t testing.TB, by *issued, name string, ca bool, change func(c *x509.Certificate)) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issueFor(t, by, key, name, ca, change)
}

func issueFor(t testing.TB, by *issued, key crypto.Signer, name string, ca bool, change func(c *x509.Certificate)) *issued {
	t.Helper()
	serial++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name, Organization: []string{"Acme"}},
		NotBefore: year(2025), NotAfter: year(2028),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, BasicConstraintsValid: true,
	}
	if ca {
		c.NotBefore, c.NotAfter = year(2020), year(2040)
		c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil
	}
	if change != nil {
		change(c)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{cert, key}
}

// withChain replaces the certificates of the only signature.
func withChain(t testing.TB, env []byte, chain ...*issued) []byte {
	t.Helper()
	return edit(t, env, func(e *envelope) {
		e.Signatures[0].Chain = nil
		for _, c := range chain {
			e.Signatures[0].Chain = append(e.Signatures[0].Chain, base64.StdEncoding.EncodeToString(c.cert.Raw))
		}
	})
}

// bare seals with the key of a certificate, and puts any chain beside it.
func bare(t testing.TB, by *issued, chain ...*issued) []byte {
	t.Helper()
	s, err := NewSigner(by.key)
	if err != nil {
		t.Fatal(err)
	}
	return withChain(t, seal(t, s), chain...)
}

func TestCertificates(t *testing.T) {
	root := issue(t, nil, "Root", true, nil)
	other := issue(t, nil, "Root", true, nil) // another key under the same name
	team := issue(t, root, "Team", true, nil)
	leaf := issue(t, team, "Release", false, nil)
	second := issue(t, team, "Release", false, nil)
	again := issueFor(t, team, leaf.key, "Release", false, nil) // the same key
	noPath := issue(t, root, "Narrow", true, func(c *x509.Certificate) { c.MaxPathLenZero = true })
	below := issue(t, noPath, "Below", true, nil)
	onlyTLS := issue(t, root, "TLS", true, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaRoot := rsaCA(t)
	ring := loadFiles(t, map[string][]byte{"root.pem": root.pem(), "rsa.crt": rsaRoot.pem()})
	leafOf := func(by *issued, change func(c *x509.Certificate)) *issued {
		return issue(t, by, "Release", false, change)
	}

	for _, tc := range []struct {
		name           string
		env            []byte
		created, floor time.Time
		want           string // of the error; "" = accepted
	}{
		{"signed by a team", seal(t, leaf.signer(t, team)), year(2026), time.Time{}, ""},
		{"signed by a team, root given too", seal(t, leaf.signer(t, team, root)), year(2026), time.Time{}, ""},
		{"Ed25519", seal(t, issueFor(t, team, edKey, "Release", false, nil).signer(t, team)), year(2026), time.Time{}, ""},
		{"directly below the root", seal(t, leafOf(root, nil).signer(t)), year(2026), time.Time{}, ""},
		{"below an RSA root", seal(t, leafOf(rsaRoot, nil).signer(t)), year(2026), time.Time{}, ""},
		{"root valid for long, leaf no more at the floor", seal(t, leaf.signer(t, team)), year(2026), year(2029), "expired"},
		{"valid at the floor, too", seal(t, leaf.signer(t, team)), year(2026), year(2027), ""},
		{"signed after its end", seal(t, leaf.signer(t, team)), year(2030), time.Time{}, "expired"},
		{"signed before its begin", seal(t, leaf.signer(t, team)), year(2024), time.Time{}, "not yet valid"},
		{"tells no time", seal(t, leaf.signer(t, team)), time.Time{}, time.Time{}, "tells no time"},
		{"no chain", bare(t, leaf), year(2026), time.Time{}, "is not known here"},
		{"intermediate left out", bare(t, leaf, leaf), year(2026), time.Time{}, "unknown authority"},
		{"another's certificate", bare(t, second, leaf, team), year(2026), time.Time{}, "not made with the key of its certificate"},
		{"a root of the same name", seal(t, leafOf(other, nil).signer(t)), year(2026), time.Time{}, "unknown authority"},
		{"root comes along", bare(t, leaf, leaf, team, root), year(2026), time.Time{}, "not a chain from the signer to the root"},
		{"another certificate comes along", bare(t, leaf, leaf, team, noPath), year(2026), time.Time{}, "not a chain"},
		{"out of order", bare(t, leaf, leaf, below, team), year(2026), time.Time{}, "not a chain"},
		{"below a path length of zero", seal(t, leafOf(below, nil).signer(t, below, noPath)), year(2026), time.Time{}, "too many intermediates"},
		{"wrong purpose certificate: TLS server", purposes(t, team, x509.ExtKeyUsageServerAuth), year(2026), time.Time{}, "not for code signing"},
		{"wrong purpose certificate: none named", purposes(t, team), year(2026), time.Time{}, "not for code signing"},
		{"wrong purpose certificate: any", purposes(t, team, x509.ExtKeyUsageCodeSigning, x509.ExtKeyUsageAny), year(2026), time.Time{}, "not for code signing"},
		{"wrong purpose certificate: authority", bare(t, team, team), year(2026), time.Time{}, "an authority's"},
		{"wrong purpose certificate: intermediate for TLS only", seal(t, leafOf(onlyTLS, nil).signer(t, onlyTLS)), year(2026), time.Time{}, "incompatible key usage"},
		{"wrong purpose certificate: no digital signatures", usage(t, team, x509.KeyUsageKeyEncipherment), year(2026), time.Time{}, "not for digital signatures"},
		{"wrong purpose certificate: issued by a leaf", issuedByLeaf(t, leaf, team), year(2026), time.Time{}, "not that of an authority"},
		{"P-384 leaf", bare(t, leaf, issueFor(t, team, p384, "Release", false, nil), team), year(2026), time.Time{}, "P-256"},
		{"NUL in a name", bare(t, leaf, issueFor(t, team, leaf.key, "Release\x00.evil", false, nil), team), year(2026), time.Time{}, "control character or a slash"},
		{"slash in a name", bare(t, leaf, issueFor(t, team, leaf.key, "Release/../Evil", false, nil), team), year(2026), time.Time{}, "control character or a slash"},
		{"slash in an intermediate's name", slashAbove(t, root), year(2026), time.Time{}, "control character or a slash"},
		{"garbage for a certificate", edit(t, seal(t, leaf.signer(t, team)), func(e *envelope) { e.Signatures[0].Chain = []string{"AAAA"} }), year(2026), time.Time{}, "x509"},
		{"certificate with a byte more", edit(t, seal(t, leaf.signer(t, team)), func(e *envelope) {
			e.Signatures[0].Chain[0] = base64.StdEncoding.EncodeToString(append(bytes.Clone(leaf.cert.Raw), 0))
		}), year(2026), time.Time{}, "trailing"},
		{"another payload", edit(t, seal(t, leaf.signer(t, team)), func(e *envelope) { e.Payload = "eA==" }), year(2026), time.Time{}, "not made with the key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, err := ring.Policy(1).Verify(tc.env, testType, tc.floor, claim(Claims{Created: tc.created}))
			checkVerdict(t, v, err, tc.want)
		})
	}
	t.Run("threshold met twice by one key", func(t *testing.T) {
		twice := joined(t, seal(t, leaf.signer(t, team)), seal(t, again.signer(t, team)))
		v, err := ring.Policy(2).Verify(twice, testType, time.Time{}, claim(Claims{Created: year(2026)}))
		checkVerdict(t, v, err, "signed by 1")
		two := seal(t, leaf.signer(t, team), second.signer(t, team))
		v, err = ring.Policy(2).Verify(two, testType, time.Time{}, claim(Claims{Created: year(2026)}))
		checkVerdict(t, v, err, "")
	})
	t.Run("a plain key and its certificate are one", func(t *testing.T) {
		both := loadFiles(t, map[string][]byte{"root.pem": root.pem(), "leaf.pub": pubPEM(t, leaf.key.Public())})
		twice := joined(t, seal(t, leaf.signer(t, team)), bare(t, leaf))
		v, err := both.Policy(2).Verify(twice, testType, time.Time{}, claim(Claims{Created: year(2026)}))
		checkVerdict(t, v, err, "signed by 1")
		// As a plain key it is believed for good, whatever comes along.
		v, err = both.Policy(1).Verify(bare(t, leaf, second, team), testType, year(2035), claim(Claims{Created: year(2035)}))
		checkVerdict(t, v, err, "")
	})
	t.Run("too many certificates", func(t *testing.T) {
		if _, err := ring.Verify(bare(t, leaf, leaf, team, team, team, team), testType, 1); !errors.Is(err, ErrMalformed) {
			t.Errorf("Verify: %v; want ErrMalformed", err)
		}
		if _, err := ring.Verify(edit(t, bare(t, leaf), func(e *envelope) { e.Signatures[0].Chain = []string{""} }), testType, 1); !errors.Is(err, ErrMalformed) {
			t.Errorf("empty certificate: Verify: %v; want ErrMalformed", err)
		}
	})
}

func purposes(t *testing.T, team *issued, list ...x509.ExtKeyUsage) []byte {
	c := issue(t, team, "Release", false, func(c *x509.Certificate) { c.ExtKeyUsage = list })
	return bare(t, c, c, team)
}

func usage(t *testing.T, team *issued, u x509.KeyUsage) []byte {
	c := issue(t, team, "Release", false, func(c *x509.Certificate) { c.KeyUsage = u })
	return bare(t, c, c, team)
}

func issuedByLeaf(t *testing.T, leaf, team *issued) []byte {
	c := issue(t, leaf, "Release", false, nil)
	return bare(t, c, c, leaf, team)
}

func slashAbove(t *testing.T, root *issued) []byte {
	ca := issue(t, root, "A/B", true, nil)
	c := issue(t, ca, "Release", false, nil)
	return bare(t, c, c, ca)
}

func rsaCA(t *testing.T) *issued {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return issueFor(t, nil, key, "RSA Root", true, nil)
}

// joined is an envelope with the signatures of both.
func joined(t testing.TB, a, b []byte) []byte {
	t.Helper()
	other, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return edit(t, a, func(e *envelope) { e.Signatures = append(e.Signatures, other.Signatures...) })
}

func TestPinnedSubject(t *testing.T) {
	root := issue(t, nil, "Root", true, nil)
	app, boot := issue(t, root, "App", false, nil), issue(t, root, "Bootloader", false, nil)
	// A second common name, which the fields of package pkix would hide.
	two := issue(t, root, "", false, func(c *x509.Certificate) {
		oid := asn1.ObjectIdentifier{2, 5, 4, 3}
		c.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Acme"}, {Type: oid, Value: "App"}, {Type: oid, Value: "Bootloader"}}}
	})
	ring := loadFiles(t, map[string][]byte{"root.pem": root.pem()})
	p, err := ParsePolicy([]byte(`
[signers.boot]
file = "root.pem"
subject = "CN=Bootloader,O=Acme"
[signers.all]
file = "root.pem"
[[rule]]
classes = ["bootloader"]
signers = ["boot"]
threshold = 1
[[rule]]
signers = ["all"]
threshold = 1
`), ring)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		by    *issued
		class string
		want  string
	}{
		{boot, "bootloader", ""},
		{app, "bootloader", "the certificate is for CN=App,O=Acme, and signer boot is CN=Bootloader,O=Acme"},
		{two, "bootloader", "signer boot is"},
		{app, "rootfs", ""},
	} {
		v, err := p.Verify(seal(t, tc.by.signer(t)), testType, time.Time{}, claim(Claims{Created: year(2026), Classes: []string{tc.class}}))
		checkVerdict(t, v, err, tc.want)
	}
	if _, err := ParsePolicy([]byte("[signers.all]\nfile = \"root.pem\"\nnot_after = 2030-01-01T00:00:00Z\n[[rule]]\nsigners = [\"all\"]\nthreshold = 1\n"), ring); !errors.Is(err, ErrPolicy) {
		t.Errorf("validity of an authority: %v; want ErrPolicy", err)
	}
}

// crl makes the revocation list of an authority.
func crl(t testing.TB, by *issued, change func(l *x509.RevocationList), revoked ...*issued) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: year(2026), NextUpdate: year(2026).AddDate(0, 1, 0)}
	for _, r := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.cert.SerialNumber, RevocationTime: year(2026)})
	}
	if change != nil {
		change(l)
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, by.cert, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func TestRevocationLists(t *testing.T) {
	root := issue(t, nil, "Root", true, nil)
	team := issue(t, root, "Team", true, nil)
	renamed := issue(t, root, "Team", true, nil) // the team's next key
	leaf, second := issue(t, team, "Release", false, nil), issue(t, team, "Release", false, nil)
	env := seal(t, leaf.signer(t, team))
	forged := issueFor(t, nil, renamed.key, "Team", true, func(c *x509.Certificate) { c.SubjectKeyId = team.cert.SubjectKeyId })
	for _, tc := range []struct {
		name string
		crls [][]byte
		want string
	}{
		{"nobody", [][]byte{crl(t, team, nil), crl(t, root, nil)}, ""},
		{"another one", [][]byte{crl(t, team, nil, second)}, ""},
		{"the signer", [][]byte{crl(t, team, nil, leaf)}, "is revoked by 0.crl"},
		{"the signer, in a list long out of date", [][]byte{crl(t, team, func(l *x509.RevocationList) { l.ThisUpdate, l.NextUpdate = year(2001), year(2002) }, leaf)}, "is revoked"},
		{"the signer, after it had signed", [][]byte{crl(t, team, func(l *x509.RevocationList) { l.RevokedCertificateEntries[0].RevocationTime = year(2027) }, leaf)}, "is revoked"},
		{"the team", [][]byte{crl(t, team, nil), crl(t, root, nil, team)}, "is revoked by 1.crl"},
		{"a list of the team's next key", [][]byte{crl(t, renamed, nil, leaf)}, ""},
		{"a list that somebody else signed", [][]byte{crl(t, forged, nil)}, "not signed by the issuer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := map[string][]byte{"root.pem": root.pem()}
			for i, b := range tc.crls {
				files[string(rune('0'+i))+".crl"] = b
			}
			v, err := loadFiles(t, files).Policy(1).Verify(env, testType, time.Time{}, claim(Claims{Created: year(2026)}))
			checkVerdict(t, v, err, tc.want)
		})
	}
	// By key id, a policy revokes authorities, too.
	ring := loadFiles(t, map[string][]byte{"root.pem": root.pem()})
	for _, who := range []*issued{leaf, team, root} {
		p, err := ParsePolicy([]byte("revoked = [\""+certificateKeyID(who.cert)+"\"]\n[signers.x]\nfile = \"root.pem\"\n[[rule]]\nsigners = [\"x\"]\nthreshold = 1\n"), ring)
		if err != nil {
			t.Fatal(err)
		}
		v, err := p.Verify(env, testType, time.Time{}, claim(Claims{Created: year(2026)}))
		checkVerdict(t, v, err, certificateKeyID(who.cert)+" is revoked")
	}
}

func TestUnusableAuthorities(t *testing.T) {
	root := issue(t, nil, "Root", true, nil)
	leaf := issue(t, root, "Release", false, nil)
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	partial := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0}}
	for name, tc := range map[string]struct {
		file string
		b    []byte
		want string
	}{
		"a leaf":              {"x.pem", leaf.pem(), "not that of an authority"},
		"a short key":         {"x.pem", issueFor(t, nil, short, "Root", true, nil).pem(), "1024 bits"},
		"a slash in its name": {"x.pem", issue(t, nil, "A/B", true, nil).pem(), "slash"},
		"two in a file":       {"x.pem", slices.Concat(root.pem(), issue(t, nil, "Other", true, nil).pem()), "more than one PEM block"},
		"no list":             {"x.crl", root.pem(), "no PEM block of type"},
		"garbage for a list":  {"x.crl", []byte("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"), "x509"},
		"a list of a part":    {"x.crl", crl(t, root, func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{partial} }), "critical extension"},
		"two lists in a file": {"x.crl", slices.Concat(crl(t, root, nil), crl(t, root, nil)), "more than one PEM block"},
	} {
		dir := t.TempDir()
		for name, b := range map[string][]byte{"root.pem": root.pem(), tc.file: tc.b} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if k, err := LoadKeyring(dir); k != nil || err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: LoadKeyring = %v, %v; want an error that says %q", name, k, err, tc.want)
		}
	}
}

func TestChainsThatAreNone(t *testing.T) {
	root := issue(t, nil, "Root", true, nil)
	team := issue(t, root, "Team", true, nil)
	leaf := issue(t, team, "Release", false, nil)
	s, err := NewSigner(leaf.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		chain []byte
		want  string
	}{
		"nothing":        {nil, "no certificate"},
		"a public key":   {pubPEM(t, leaf.key.Public()), "PUBLIC KEY"},
		"another's":      {issue(t, team, "Release", false, nil).pem(), "none of those that sign"},
		"upside down":    {slices.Concat(team.pem(), leaf.pem()), "an authority's"},
		"one left out":   {slices.Concat(leaf.pem(), issue(t, root, "Other", true, nil).pem()), "not signed by the next one"},
		"wrong purpose":  {issueFor(t, team, leaf.key, "X", false, func(c *x509.Certificate) { c.ExtKeyUsage = nil }).pem(), "not for code signing"},
		"far too many":   {bytes.Repeat(team.pem(), 12), "more than"},
		"more than that": {bytes.Repeat(team.pem(), 60), "more than"},
	} {
		if got, err := WithChain(tc.chain, []Signer{s}); got != nil || !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: WithChain = %v, %v; want an error that says %q", name, got, err, tc.want)
		}
	}
}

// FuzzChain: whatever comes along with a signature, nobody is believed but the one
// whose certificate it is.
func FuzzChain(f *testing.F) {
	root := issue(f, nil, "Root", true, nil)
	team := issue(f, root, "Team", true, nil)
	leaf := issue(f, team, "Release", false, nil)
	f.Add(leaf.cert.Raw, team.cert.Raw)
	f.Add(team.cert.Raw, root.cert.Raw)
	f.Add([]byte{}, []byte{0x30})
	p := loadFiles(f, map[string][]byte{"root.pem": root.pem()}).Policy(1)
	env := bare(f, leaf)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		b := edit(t, env, func(e *envelope) {
			e.Signatures[0].Chain = []string{base64.StdEncoding.EncodeToString(first), base64.StdEncoding.EncodeToString(second)}
		})
		v, err := p.Verify(b, testType, time.Time{}, claim(Claims{Created: year(2026)}))
		if (err == nil) != (bytes.Equal(first, leaf.cert.Raw) && bytes.Equal(second, team.cert.Raw)) || (err == nil) != (v != nil) {
			t.Fatalf("Verify = %v, %v", v, err)
		}
	})
}

// FuzzRevocations looks for panics and for results beside errors.
func FuzzRevocations(f *testing.F) {
	root := issue(f, nil, "Root", true, nil)
	leaf := issue(f, root, "Release", false, nil)
	f.Add(crl(f, root, nil, leaf))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRevocations("x.crl", b)
		if (err == nil) != (r != nil) {
			t.Fatalf("parseRevocations = %v, %v", r, err)
		}
		if r != nil {
			_ = r.check(leaf.cert, root.cert)
		}
	})
}
