// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// maxCertificate bounds one certificate, in bytes of DER.
	maxCertificate = 8 << 10
	maxSubject     = 512
	// minRSA and maxRSA bound the RSA key of an authority, in bits.
	minRSA = 2048
	maxRSA = 8192

	certificatePEM = "CERTIFICATE"
)

// An authority is a certificate of the keyring: it vouches for the keys of others.
type authority struct {
	cert *x509.Certificate
	pool *x509.CertPool // of that one, so never the system's
}

func newAuthority(der []byte) (*authority, error) {
	cert, err := parseCertificate(der)
	if err != nil {
		return nil, err
	}
	if err := checkIssuer(cert); err != nil {
		return nil, err
	}
	a := &authority{cert: cert, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a, nil
}

// vouches checks that chain leads to a, and that all of it is valid at the time.
func (a *authority) vouches(chain []*x509.Certificate, at time.Time) error {
	if at.IsZero() { // to package x509 this would mean: now
		return errors.New("internal error: a certificate is judged at no time")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	found, err := chain[0].Verify(x509.VerifyOptions{
		Roots: a.pool, Intermediates: between, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	})
	if err != nil {
		return err
	}
	// What came is what is used: no certificate beside the chain, none left out.
	want := append(slices.Clone(chain), a.cert)
	if !slices.ContainsFunc(found, func(f []*x509.Certificate) bool { return slices.EqualFunc(f, want, (*x509.Certificate).Equal) }) {
		return errors.New("the certificates that came are not a chain from the signer to the root")
	}
	return nil
}

// firstValid is the earliest time at which a chain could be valid: if it is not
// valid then, it never was.
func (a *authority) firstValid(chain []*x509.Certificate) time.Time {
	at := a.cert.NotBefore
	for _, c := range chain {
		if c.NotBefore.After(at) {
			at = c.NotBefore
		}
	}
	return at
}

// parseCertificate reads one certificate whose names are fit to be shown and compared.
func parseCertificate(der []byte) (*x509.Certificate, error) {
	if len(der) > maxCertificate {
		return nil, fmt.Errorf("%w: a certificate of more than %d bytes", ErrKey, maxCertificate)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrKey, err)
	}
	if _, err := subjectOf(c); err != nil {
		return nil, err
	}
	return c, nil
}

// readChain reads what came with a signature, leaf first. Whether anybody vouches
// for it is another question.
func readChain(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) == 0 || len(ders) > MaxChain {
		return nil, fmt.Errorf("%w: a chain of %d certificates, want 1 to %d", ErrKey, len(ders), MaxChain)
	}
	var chain []*x509.Certificate
	for i, der := range ders {
		c, err := parseCertificate(der)
		if err != nil {
			return nil, err
		}
		check := checkIssuer
		if i == 0 {
			check = checkLeaf
		}
		if err := check(c); err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// checkLeaf refuses a certificate that was made for another purpose. Package x509
// takes a certificate that names no purpose for one that serves all of them.
func checkLeaf(c *x509.Certificate) error {
	name, _ := subjectOf(c)
	switch {
	case c.IsCA:
		return fmt.Errorf("%w: certificate %s is an authority's; sign with one that it issued", ErrKey, name)
	case !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny):
		return fmt.Errorf("%w: certificate %s is not for code signing (extended key usage)", ErrKey, name)
	case c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return fmt.Errorf("%w: certificate %s is not for digital signatures (key usage)", ErrKey, name)
	}
	if err := checkPublic(c.PublicKey); err != nil {
		return fmt.Errorf("certificate %s: %w", name, err)
	}
	return nil
}

func checkIssuer(c *x509.Certificate) error {
	name, _ := subjectOf(c)
	if !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fmt.Errorf("%w: certificate %s is not that of an authority (basic constraints and key usage)", ErrKey, name)
	}
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return fmt.Errorf("%w: certificate %s has an RSA key of %d bits, want %d to %d", ErrKey, name, n, minRSA, maxRSA)
		}
		return nil
	}
	return fmt.Errorf("%w: certificate %s has a key of an unknown kind", ErrKey, name)
}

// subjectOf is the whole subject as RFC 2253 writes it. The parts that package
// pkix picks out would hide one of two common names.
func subjectOf(c *x509.Certificate) (string, error) {
	var names pkix.RDNSequence
	if rest, err := asn1.Unmarshal(c.RawSubject, &names); err != nil || len(rest) > 0 {
		return "", fmt.Errorf("%w: a certificate's subject cannot be read", ErrKey)
	}
	for _, set := range names {
		for _, part := range set {
			s, ok := part.Value.(string)
			if !ok {
				return "", fmt.Errorf("%w: a certificate's subject has a part that is no text", ErrKey)
			}
			// A NUL ends a name for some readers, and a slash makes a path of it.
			if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '/' || r == '\ufffd' }) {
				return "", fmt.Errorf("%w: the subject %.80q of a certificate holds a control character or a slash", ErrKey, s)
			}
		}
	}
	name := names.String()
	if len(name) > maxSubject {
		return "", fmt.Errorf("%w: a certificate's subject of more than %d bytes", ErrKey, maxSubject)
	}
	return name, nil
}

// certificateKeyID is the key id of whatever key a certificate holds.
func certificateKeyID(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// chained is a Signer whose key has a certificate.
type chained struct {
	Signer
	chain [][]byte
}

// Chain is what goes with each signature: DER, the signer's own certificate first.
func (c *chained) Chain() [][]byte { return c.chain }

// WithChain has a certificate go with each signature of one of the signers: that
// whose key the first certificate of chain, a PEM file, is for. The intermediate
// ones follow; a root at the end is left out, because devices have their own.
func WithChain(chain []byte, signers []Signer) ([]Signer, error) {
	ders, err := chainFromPEM(chain)
	if err != nil {
		return nil, err
	}
	certs, err := readChain(ders)
	if err != nil {
		return nil, err
	}
	id, err := KeyID(certs[0].PublicKey)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(signers, func(s Signer) bool { return s.KeyID() == id })
	if at < 0 {
		name, _ := subjectOf(certs[0])
		return nil, fmt.Errorf("%w: the certificate of %s is for key %s, which is none of those that sign", ErrKey, name, id)
	}
	for i, c := range certs[1:] {
		if err := certs[i].CheckSignatureFrom(c); err != nil {
			name, _ := subjectOf(c)
			return nil, fmt.Errorf("%w: certificate %d is not signed by the next one, %s; the signer's own comes first: %v", ErrKey, i+1, name, err)
		}
	}
	signers = slices.Clone(signers)
	signers[at] = &chained{signers[at], ders}
	return signers, nil
}

// chainFromPEM reads the certificates of a PEM file, without a root at its end.
func chainFromPEM(b []byte) ([][]byte, error) {
	if len(b) > maxKeyFile {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrKey, maxKeyFile)
	}
	var ders [][]byte
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		if block.Type != certificatePEM {
			return nil, fmt.Errorf("%w: PEM block of type %q, want %q", ErrKey, block.Type, certificatePEM)
		}
		if len(ders) > MaxChain {
			return nil, fmt.Errorf("%w: more than %d certificates and a root", ErrKey, MaxChain)
		}
		ders, b = append(ders, block.Bytes), rest
	}
	if n := len(ders); n > 1 {
		last, err := parseCertificate(ders[n-1])
		if err != nil {
			return nil, err
		}
		if bytes.Equal(last.RawIssuer, last.RawSubject) {
			ders = ders[:n-1]
		}
	}
	if len(ders) == 0 {
		return nil, fmt.Errorf("%w: no certificate", ErrKey)
	}
	return ders, nil
}
