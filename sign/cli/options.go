// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"flag"
	"strconv"

	"github.com/updaterd/updaterd/sign"
)

// Keys are the options of every command that signs.
type Keys struct {
	Refs     List
	passFile string
}

// KeyOptions adds the options to a command.
func KeyOptions(f *flag.FlagSet) *Keys {
	k := &Keys{}
	f.Var(&k.Refs, "key", "private `KEY`, a PEM file; give it again for more signatures")
	f.StringVar(&k.passFile, "passphrase-file", "", "take the passphrase of the keys from the first line of `FILE`")
	return k
}

// Load loads the keys, and finds their passphrases.
func (k *Keys) Load(ctx context.Context, p *Program) ([]sign.Signer, error) {
	var signers []sign.Signer
	for _, ref := range k.Refs {
		s, err := sign.LoadSigner(ctx, ref, func() ([]byte, error) { return p.passphrase(ctx, k.passFile, ref) })
		if err != nil {
			return nil, err
		}
		signers = append(signers, s)
	}
	return signers, nil
}

// Trust are the options of every command that verifies.
type Trust struct {
	Dir       string
	Threshold int
}

// TrustOptions adds the options to a command.
func TrustOptions(f *flag.FlagSet) *Trust {
	t := &Trust{Threshold: 1}
	f.StringVar(&t.Dir, "keyring", "", "`DIR` with the public keys to believe, *.pem and *.pub")
	f.Var((*count)(&t.Threshold), "threshold", "`NUMBER` of different keys that must have signed")
	return t
}

// Keyring loads the keys to believe.
func (t *Trust) Keyring() (*sign.Keyring, error) { return sign.LoadKeyring(t.Dir) }

// count is a number of at least 1.
type count int

func (c *count) String() string { return strconv.Itoa(int(*c)) }

func (c *count) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return errors.New("it must be a number of at least 1")
	}
	*c = count(n)
	return nil
}
