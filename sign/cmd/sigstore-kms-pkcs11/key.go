// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/updaterd/updaterd/sign/pkcs11"
)

// A key is a key pair of a token. It is what sigstore calls a SignerVerifier.
type key struct {
	*module
	uri     *pkcs11.URI
	askPIN  func(token string) ([]byte, error)
	session ulong
	token   *tokenInfo
	pin     []byte // once it was given
}

// openKey finds the token that uri names.
func openKey(uri *pkcs11.URI, askPIN func(token string) ([]byte, error)) (*key, error) {
	path := uri.ModulePath
	if path == "" {
		path = "p11-kit-proxy.so" // all modules that the system knows
	}
	m, err := openModule(path)
	if err != nil {
		return nil, err
	}
	k := &key{module: m, uri: uri, askPIN: askPIN}
	slot, err := k.findToken()
	if err == nil {
		k.session, err = m.openSession(slot)
	}
	if err != nil {
		m.close()
		return nil, fmt.Errorf("find the token: %w", err)
	}
	return k, nil
}

func trim(b []byte) string { return string(bytes.TrimRight(b, " \x00")) }

func (k *key) findToken() (slot ulong, err error) {
	slots, err := k.slots()
	if err != nil {
		return 0, err
	}
	var there []string
	var match []ulong
	for _, s := range slots {
		info, err := k.module.token(s)
		if err != nil || info.flags&ckfTokenInitialized == 0 {
			continue
		}
		there = append(there, fmt.Sprintf("%q (model %q, serial %q)", trim(info.label[:]), trim(info.model[:]), trim(info.serial[:])))
		same := func(want string, is []byte) bool { return want == "" || want == trim(is) }
		u := k.uri
		if same(u.Token, info.label[:]) && same(u.Manufacturer, info.manufacturer[:]) && same(u.Model, info.model[:]) &&
			same(u.Serial, info.serial[:]) && (u.SlotID == nil || ulong(*u.SlotID) == s) {
			match = append(match, s)
			k.token = info
		}
	}
	switch {
	case len(there) == 0:
		return 0, errors.New("there is none; plug it in, and see that module-path is the library for it")
	case len(match) == 0:
		return 0, fmt.Errorf("none has what the URI says; there are: %s", strings.Join(there, ", "))
	case len(match) > 1:
		return 0, fmt.Errorf("%d of them have what the URI says; add serial= of one: %s", len(match), strings.Join(there, ", "))
	}
	return match[0], nil
}

// template is what to search an object by.
func (k *key) template(class ulong) []attribute {
	t := []attribute{number(ckaClass, class)}
	if k.uri.Object != "" {
		t = append(t, bytesOf(ckaLabel, []byte(k.uri.Object)))
	}
	if k.uri.ID != "" {
		t = append(t, bytesOf(ckaID, []byte(k.uri.ID)))
	}
	return t
}

// PublicKey takes the public half from the token: the public key object, or else
// the certificate.
func (k *key) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	pub, err := k.public(k.template)
	if pub != nil || err != nil {
		return pub, err
	}
	// The two halves may have other labels; then the id tells.
	private, err := k.private()
	if err != nil {
		return nil, err
	}
	id, err := k.attribute(k.session, private, ckaID)
	if err != nil {
		return nil, err
	}
	if len(id) > 0 {
		pub, err = k.public(func(class ulong) []attribute { return []attribute{number(ckaClass, class), bytesOf(ckaID, id)} })
	}
	if pub == nil && err == nil {
		err = errors.New("the token has the private key, and neither a public key nor a certificate with the same id; put one there")
	}
	return pub, err
}

// public is nil if there is no such object.
func (k *key) public(template func(class ulong) []attribute) (crypto.PublicKey, error) {
	objects, err := k.find(k.session, template(ckoPublicKey)...)
	if err != nil {
		return nil, fmt.Errorf("find the public key: %w", err)
	}
	if len(objects) > 1 {
		return nil, fmt.Errorf("there are %d such public keys; add id=%%HEX of one", len(objects))
	}
	if len(objects) == 1 {
		return k.publicObject(objects[0])
	}
	if objects, err = k.find(k.session, template(ckoCertificate)...); err != nil {
		return nil, fmt.Errorf("find the certificate: %w", err)
	}
	if len(objects) != 1 {
		return nil, nil
	}
	der, err := k.attribute(k.session, objects[0], ckaValue)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	return cert.PublicKey, nil
}

func (k *key) publicObject(object ulong) (crypto.PublicKey, error) {
	kind, err := k.number(k.session, object, ckaKeyType)
	if err != nil {
		return nil, fmt.Errorf("read the public key: %w", err)
	}
	point, err := k.attribute(k.session, object, ckaECPoint)
	if err != nil {
		return nil, fmt.Errorf("read the public key: %w", err)
	}
	return parsePoint(kind, point)
}

// parsePoint reads CKA_EC_POINT: an OCTET STRING, or in some modules what is in it.
func parsePoint(kind ulong, point []byte) (crypto.PublicKey, error) {
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner
	}
	switch kind {
	case ckkEC:
		pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		if err != nil {
			return nil, fmt.Errorf("the key is no ECDSA key on P-256: %w", err)
		}
		return pub, nil
	case ckkECEdwards:
		if len(point) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("the key is no Ed25519 key: its point has %d bytes", len(point))
		}
		return ed25519.PublicKey(point), nil
	}
	return nil, fmt.Errorf("the key has type 0x%x; use ECDSA P-256 or Ed25519", kind)
}

// private finds the private key, for which the token wants the PIN.
func (k *key) private() (ulong, error) {
	if err := k.logIn(ckuUser); err != nil {
		return 0, err
	}
	objects, err := k.find(k.session, k.template(ckoPrivateKey)...)
	switch {
	case err != nil:
		return 0, fmt.Errorf("find the private key: %w", err)
	case len(objects) == 0:
		return 0, fmt.Errorf("token %q has no such private key; pkcs11-tool --list-objects --login shows what there is", trim(k.token.label[:]))
	case len(objects) > 1:
		return 0, fmt.Errorf("there are %d such private keys; add id=%%HEX of one", len(objects))
	}
	return objects[0], nil
}

// logIn never tries twice: a token locks itself after a few wrong PINs. A key that
// wants the PIN for each signature gets the one that was given before.
func (k *key) logIn(user ulong) error {
	label := trim(k.token.label[:])
	if k.token.flags&ckfUserPINLocked != 0 {
		return fmt.Errorf("token %q: the PIN is locked; unlock it with the tool of the token and its PUK or SO PIN", label)
	}
	if k.pin == nil && k.token.flags&ckfProtectedPath == 0 {
		if k.token.flags&ckfUserPINFinalTry != 0 {
			label += ", of which this is the last try before it locks"
		}
		var err error
		if k.pin, err = k.askPIN(label); err != nil {
			return err
		}
	}
	err := k.login(k.session, user, k.pin)
	if user == ckuUser && errors.Is(err, code(ckrAlreadyLoggedIn)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("log in to token %q: %w", trim(k.token.label[:]), err)
	}
	return nil
}

// maxMessage bounds what is read to be signed: an envelope has at most 1 MiB.
const maxMessage = 2 << 20

// SignMessage signs as devices verify: ECDSA over SHA-256 in ASN.1, or Ed25519 over
// the message itself.
func (k *key) SignMessage(r io.Reader, _ ...signature.SignOption) ([]byte, error) {
	message, err := io.ReadAll(io.LimitReader(r, maxMessage+1))
	if err != nil {
		return nil, err
	}
	if len(message) == 0 || len(message) > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes or more; want 1 to %d", len(message), maxMessage)
	}
	object, err := k.private()
	if err != nil {
		return nil, err
	}
	kind, err := k.number(k.session, object, ckaKeyType)
	if err != nil {
		return nil, fmt.Errorf("read the key's type: %w", err)
	}
	again, err := k.attribute(k.session, object, ckaAlwaysAuthenticate)
	if err != nil {
		return nil, fmt.Errorf("read what the key wants: %w", err)
	}
	between := func() error {
		if len(again) == 1 && again[0] != 0 {
			return k.logIn(ckuContextSpecific)
		}
		return nil
	}
	switch kind {
	case ckkEC:
		digest := sha256.Sum256(message)
		raw, err := k.sign(k.session, object, ckmECDSA, digest[:], between)
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		return toASN1(raw)
	case ckkECEdwards:
		sig, err := k.sign(k.session, object, ckmEDDSA, message, between)
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		return sig, nil
	}
	return nil, fmt.Errorf("the key has type 0x%x; use ECDSA P-256 or Ed25519", kind)
}

// toASN1 makes of the two numbers of an ECDSA signature, as a token writes them one
// after the other, what everybody else writes.
func toASN1(raw []byte) ([]byte, error) {
	if len(raw) != 64 {
		return nil, fmt.Errorf("a signature of %d bytes, want 64: the key is not on P-256", len(raw))
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])})
}

// VerifySignature needs no token but for the public key.
func (k *key) VerifySignature(sig, message io.Reader, opts ...signature.VerifyOption) error {
	pub, err := k.PublicKey()
	if err != nil {
		return err
	}
	v, err := signature.LoadVerifier(pub, crypto.SHA256)
	if err != nil {
		return err
	}
	return v.VerifySignature(sig, message, opts...)
}

var errNotHere = errors.New("this is not done here; use the tool of the token, such as pkcs11-tool")

// CreateKey is left to the tools of the token.
func (k *key) CreateKey(context.Context, string) (crypto.PublicKey, error) { return nil, errNotHere }

// CryptoSigner is not part of the plugin protocol.
func (k *key) CryptoSigner(context.Context, func(error)) (crypto.Signer, crypto.SignerOpts, error) {
	return nil, nil, errNotHere
}

func (k *key) SupportedAlgorithms() []string { return []string{"ecdsa-p256", "ed25519"} }

func (k *key) DefaultAlgorithm() string { return "ecdsa-p256" }
