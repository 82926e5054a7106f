// SPDX-License-Identifier: Apache-2.0

// Package keyref opens the private key that a key reference names, wherever it
// lives:
//
//	release.key                     a PEM file, plain or with a passphrase
//	awskms:///alias/release         AWS KMS
//	gcpkms://projects/…             Google Cloud KMS
//	azurekms://vault.net/release    Azure Key Vault
//	hashivault://release            the transit engine of Vault; openbao:// of OpenBao
//	pkcs11:token=…;object=…         a token: package pkcs11
//	NAME://…                        the program sigstore-kms-NAME, by sigstore's plugin protocol
//
// It is for build hosts: it brings the clients of all these services along, and
// they find their credentials in the environment and in files of their own. The
// device binary must not have it.
package keyref

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms"
	_ "github.com/sigstore/sigstore/pkg/signature/kms/aws" // each registers its scheme
	_ "github.com/sigstore/sigstore/pkg/signature/kms/azure"
	_ "github.com/sigstore/sigstore/pkg/signature/kms/gcp"
	_ "github.com/sigstore/sigstore/pkg/signature/kms/hashivault"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/pkcs11"
)

// A Secret is where the passphrase of a file or the PIN of a token comes from.
type Secret struct {
	// Ask is called if a PEM file is encrypted; it may be nil. A token's PIN is
	// asked for by the program that speaks to the token.
	Ask func() ([]byte, error)
	// File has the PIN of a token in its first line, if it is set and the reference
	// names no source for the PIN.
	File string
}

var (
	scheme = regexp.MustCompile(`^([a-z0-9][a-z0-9-]*)://`)

	// next is what to look at when a service refuses.
	next = map[string]string{
		"awskms":     "see that AWS_REGION and credentials are set as for the program aws, and may use kms:GetPublicKey, kms:DescribeKey and kms:Sign",
		"gcpkms":     "see that GOOGLE_APPLICATION_CREDENTIALS or gcloud has credentials with the role roles/cloudkms.signerVerifier",
		"azurekms":   "see that AZURE_TENANT_ID, AZURE_CLIENT_ID and a secret are set, or az is logged in, with the permissions get and sign",
		"hashivault": "see that VAULT_ADDR and VAULT_TOKEN are set, and that the token's policy has read of transit/keys and update of transit/sign",
		"openbao":    "see that BAO_ADDR and BAO_TOKEN are set, and that the token's policy has read of transit/keys and update of transit/sign",
	}
)

// Load opens the key that ref names. It is one that devices can verify: ECDSA on
// P-256 or Ed25519.
func Load(ctx context.Context, ref string, secret Secret) (sign.Signer, error) {
	if strings.HasPrefix(ref, pkcs11.Scheme) {
		return loadToken(ctx, ref, secret.File)
	}
	name := scheme.FindStringSubmatch(ref)
	if name == nil {
		return sign.LoadSigner(ctx, ref, secret.Ask)
	}
	s, err := load(ctx, ref, ref)
	if err != nil && next[name[1]] != "" {
		err = fmt.Errorf("%w; %s", err, next[name[1]])
	}
	return s, err
}

// loadToken hands the key of a token to the plugin for it, a program of its own:
// to load the library that a token comes with, a program must be a dynamic one.
func loadToken(ctx context.Context, ref, pinFile string) (sign.Signer, error) {
	uri, err := pkcs11.Parse(ref)
	if err != nil {
		return nil, fmt.Errorf("load key: %w: %v", sign.ErrKey, err)
	}
	if pinFile != "" && uri.PINSource == "" && uri.PINValue == "" {
		if uri.PINSource, err = filepath.Abs(pinFile); err != nil {
			return nil, err
		}
	}
	shown := *uri
	shown.PINValue = ""
	return load(ctx, shown.String(), "pkcs11://"+strings.TrimPrefix(uri.String(), pkcs11.Scheme))
}

// load opens a key of a service or a plugin; name is what errors call it. The
// options are those of the service's client.
func load(ctx context.Context, name, ref string, opts ...signature.RPCOption) (sign.Signer, error) {
	s, err := open(ctx, name, ref, crypto.SHA256, opts)
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	pub, err := s.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	id, err := sign.KeyID(pub)
	if err != nil {
		return nil, fmt.Errorf("load key %s: %w", name, err)
	}
	if _, pure := pub.(ed25519.PublicKey); pure {
		// Not Ed25519ph: devices verify the message itself.
		if s, err = open(ctx, name, ref, crypto.Hash(0), opts); err != nil {
			return nil, fmt.Errorf("load key: %w", err)
		}
	}
	s.id, s.pub = id, pub
	return s, nil
}

func open(ctx context.Context, name, ref string, hash crypto.Hash, opts []signature.RPCOption) (*remote, error) {
	service, err := kms.Get(ctx, ref, hash, opts...)
	var unknown *kms.ProviderNotFoundError
	switch {
	case errors.As(err, &unknown) && errors.Is(err, exec.ErrNotFound):
		program := "sigstore-kms-" + scheme.FindStringSubmatch(ref)[1]
		return nil, fmt.Errorf("%s: %w: no such service is built in, and the program %s that could speak to it is not in PATH; install it", name, sign.ErrKey, program)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %w", name, sign.ErrKey, err)
	}
	return &remote{service: service, ctx: ctx, name: name}, nil
}

// A remote is a key that stays where it is.
type remote struct {
	service signature.Signer
	ctx     context.Context // a signature.Signer has none
	name    string
	id      string
	pub     crypto.PublicKey
}

func (r *remote) KeyID() string { return r.id }

func (r *remote) PublicKey(...signature.PublicKeyOption) (pub crypto.PublicKey, err error) {
	if r.pub != nil {
		return r.pub, nil
	}
	defer r.explain("public key", &err)
	return r.service.PublicKey(options.WithContext(r.ctx))
}

func (r *remote) SignMessage(message io.Reader, opts ...signature.SignOption) (sig []byte, err error) {
	defer r.explain("sign", &err)
	return r.service.SignMessage(message, append(opts, options.WithContext(r.ctx))...)
}

// explain names the key in an error. The clients of the services take an answer
// that lacks a part for a whole one, which is an error here and no crash.
func (r *remote) explain(what string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the answer makes no sense: %v", p)
	}
	if *err != nil {
		*err = fmt.Errorf("%s: %s: %w", r.name, what, *err)
	}
}
