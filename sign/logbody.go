// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// What Rekor keeps of a signature, byte by byte: it writes JSON in canonical form
// (RFC 8785). So a body is not parsed: it is what this signature's must be, or it is
// about something else, and no other reader can understand it in another way.
//
// The digest of a hashedrekord is that of DSSE's pre-authentication encoding, and
// that of a dsse is the payload's.
const (
	bodyHashed1 = `{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":"%x"}},"signature":{"content":"%s","publicKey":{"content":"%s"}}}}`
	bodyDSSE1   = `{"apiVersion":"0.0.1","kind":"dsse","spec":{` + bodyShown + `%s"},"payloadHash":{"algorithm":"sha256","value":"%x"},"signatures":[{"signature":"%s","verifier":"%s"}]}}`
	bodyHashed2 = `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":"%s"},"signature":{"content":"%s","verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","%s":{"rawBytes":"%s"}}}}}}`

	bodyShown = `"envelopeHash":{"algorithm":"sha256","value":"`
)

// isBody checks that an entry's body is about this signature of the payload by the
// key of the mark.
func (m *mark) isBody(body []byte, sig, payloadType string, payload []byte) error {
	of, signed := sha256.Sum256(payload), sha256.Sum256(ToBeSigned(payloadType, payload))
	pub, err := m.verifier.PublicKey()
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return err
	}
	text := string(body)
	// Which envelope the log was shown says nothing: a space in it changes its digest.
	_, shown, dsse1 := strings.Cut(text, bodyShown)
	shown = shown[:min(len(shown), 2*sha256.Size)]
	digest := base64.StdEncoding.EncodeToString(signed[:])
	// matches compares with what the log has if it knows the key by itself, or by its certificate.
	named := false
	matches := func(field, block string, der []byte) bool {
		inPEM, inDER := base64.StdEncoding.EncodeToString(pemOf(block, der)), base64.StdEncoding.EncodeToString(der)
		named = named || strings.Contains(text, inPEM) || strings.Contains(text, inDER)
		return text == fmt.Sprintf(bodyHashed1, signed, sig, inPEM) ||
			text == fmt.Sprintf(bodyHashed2, digest, sig, field, inDER) ||
			dsse1 && isKeyID(shown) && text == fmt.Sprintf(bodyDSSE1, shown, of, sig, inPEM)
	}
	switch {
	case matches("publicKey", publicPEM, der), m.chain != nil && matches("x509Certificate", certificatePEM, m.chain[0].Raw):
		return nil
	case !strings.Contains(text, fmt.Sprintf("%x", of)) && !strings.Contains(text, fmt.Sprintf("%x", signed)) && !strings.Contains(text, digest):
		return errors.New("it is about something else than this payload")
	case !strings.Contains(text, sig):
		return errors.New("it is about another signature")
	case !named:
		return errors.New("it names another key")
	}
	return errors.New("it is no entry for one signature of kind hashedrekord 0.0.1, hashedrekord 0.0.2 or dsse 0.0.1")
}

// pemOf writes a PEM block as Rekor does, which is as package pem does.
func pemOf(block string, der []byte) []byte {
	b := []byte("-----BEGIN " + block + "-----\n")
	for text := base64.StdEncoding.EncodeToString(der); text != ""; {
		n := min(len(text), 64)
		b = append(append(b, text[:n]...), '\n')
		text = text[n:]
	}
	return append(b, "-----END "+block+"-----\n"...)
}
