// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"slices"
)

const (
	// maxCRL bounds the file of a revocation list, and maxCRLs their number.
	maxCRL  = 256 << 10
	maxCRLs = 16

	crlPEM = "X509 CRL"
)

// A revocations is one revocation list of an issuer. Its dates decide nothing: a
// device without a clock or a network cannot tell whether there is a newer one,
// and a list that grew old would cut it off from the release that brings the new
// one. So what a list names stays revoked, and lists come with releases.
type revocations struct {
	file string
	list *x509.RevocationList
}

var (
	oidNumber       = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidAuthorityKey = asn1.ObjectIdentifier{2, 5, 29, 35}
)

func parseRevocations(file string, b []byte) (*revocations, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != crlPEM {
		return nil, fmt.Errorf("%w: no PEM block of type %q; openssl crl -inform DER makes one", ErrKey, crlPEM)
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, fmt.Errorf("%w: more than one PEM block; put each revocation list into its own file", ErrKey)
	}
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrKey, err)
	}
	// A list that holds only a part of an issuer's revocations, or those of another
	// one, says so by a critical extension.
	extensions := slices.Clone(list.Extensions)
	for _, e := range list.RevokedCertificateEntries {
		extensions = append(extensions, e.Extensions...)
	}
	for _, e := range extensions {
		if e.Critical && !e.Id.Equal(oidNumber) && !e.Id.Equal(oidAuthorityKey) {
			return nil, fmt.Errorf("%w: critical extension %v; take a full revocation list of one issuer", ErrKey, e.Id)
		}
	}
	return &revocations{file: file, list: list}, nil
}

// check is an error if the list names cert, which issuer has issued.
func (r *revocations) check(cert, issuer *x509.Certificate) error {
	if !bytes.Equal(r.list.RawIssuer, cert.RawIssuer) {
		return nil
	}
	// The list of another key that the issuer has, or had, says so.
	if a, b := r.list.AuthorityKeyId, issuer.SubjectKeyId; len(a) > 0 && len(b) > 0 && !bytes.Equal(a, b) {
		return nil
	}
	if err := r.list.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("revocation list %s is not signed by the issuer that it names: %v", r.file, err)
	}
	if slices.ContainsFunc(r.list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
		return e.SerialNumber.Cmp(cert.SerialNumber) == 0
	}) {
		return fmt.Errorf("certificate %x is revoked by %s", cert.SerialNumber, r.file)
	}
	return nil
}
