// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"os"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// maxKeyFile bounds a PEM file; the largest key in use has less than 1 KiB.
const maxKeyFile = 16 << 10

const publicPEM = "PUBLIC KEY"

// The algorithms of GenerateKey.
const (
	ECDSAP256 = "ecdsa-p256"
	Ed25519   = "ed25519"
)

// KeyID is the hex SHA-256 of the DER SubjectPublicKeyInfo of pub.
func KeyID(pub crypto.PublicKey) (string, error) {
	if err := checkPublic(pub); err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("%w: %v", ErrKey, err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// checkPublic lets pass the kinds of keys that this package supports.
func checkPublic(pub crypto.PublicKey) error {
	switch p := pub.(type) {
	case *ecdsa.PublicKey:
		if p != nil && p.Curve == elliptic.P256() {
			return nil
		}
		return fmt.Errorf("%w: ECDSA on another curve than P-256", ErrKey)
	case ed25519.PublicKey:
		if len(p) == ed25519.PublicKeySize {
			return nil
		}
		return fmt.Errorf("%w: an Ed25519 key of %d bytes", ErrKey, len(p))
	}
	return fmt.Errorf("%w: %T; use ECDSA P-256 or Ed25519", ErrKey, pub)
}

// GenerateKey makes a key pair in PEM. The private key is encrypted unless
// passphrase is nil; an empty passphrase is an error.
func GenerateKey(algorithm string, passphrase []byte) (privPEM, pubPEM []byte, err error) {
	if passphrase != nil && len(passphrase) == 0 {
		return nil, nil, fmt.Errorf("generate key: %w is empty", ErrPassphrase)
	}
	var private crypto.Signer
	switch algorithm {
	case ECDSAP256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case Ed25519:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, nil, fmt.Errorf("generate key: %w: algorithm %q; use %s or %s", ErrKey, algorithm, ECDSAP256, Ed25519)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	if pubPEM, err = cryptoutils.MarshalPublicKeyToPEM(private.Public()); err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	if passphrase == nil {
		privPEM, err = cryptoutils.MarshalPrivateKeyToPEM(private)
	} else {
		var sealed []byte
		sealed, err = cryptoutils.MarshalPrivateKeyToEncryptedDER(private, cryptoutils.StaticPasswordFunc(passphrase))
		privPEM = cryptoutils.PEMEncode(cryptoutils.EncryptedSigstorePrivateKeyPEMType, sealed)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	return privPEM, pubPEM, nil
}

// ParsePublicKey reads a PEM file that holds one public key and no other PEM block.
func ParsePublicKey(b []byte) (crypto.PublicKey, error) {
	block, err := onlyBlock(b)
	if err != nil {
		return nil, err
	}
	if block.Type != publicPEM {
		return nil, fmt.Errorf("%w: PEM block of type %q, want %q", ErrKey, block.Type, publicPEM)
	}
	pub, err := cryptoutils.UnmarshalPEMToPublicKey(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrKey, err)
	}
	if err := checkPublic(pub); err != nil {
		return nil, err
	}
	return pub, nil
}

// onlyBlock insists on a file with a single PEM block: a second one would be
// ignored by most readers, which is not what its author expects.
func onlyBlock(b []byte) (*pem.Block, error) {
	if len(b) > maxKeyFile {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrKey, maxKeyFile)
	}
	block, rest := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%w: no PEM block", ErrKey)
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, fmt.Errorf("%w: more than one PEM block; put each key into its own file", ErrKey)
	}
	return block, nil
}

// readSmall reads a file that is at most limit bytes long.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", ErrKey, path, limit)
	}
	return b, nil
}
