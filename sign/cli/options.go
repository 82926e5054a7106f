// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"

	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/keyref"
)

// Keys are the options of every command that signs.
type Keys struct {
	Refs     List
	chains   List
	passFile string
}

// KeyOptions adds the options to a command.
func KeyOptions(f *flag.FlagSet) *Keys {
	k := &Keys{}
	f.Var(&k.Refs, "key", "private `KEY`: a PEM file, or where a key lives; give it again for more signatures")
	f.Var(&k.chains, "chain", "`FILE` with the certificate of a key and the intermediate ones, PEM, its own first; may be given again")
	f.StringVar(&k.passFile, "passphrase-file", "", "take the passphrase of the keys, or the PIN of a token, from the first line of `FILE`")
	return k
}

// Load loads the keys, and finds their passphrases.
func (k *Keys) Load(ctx context.Context, p *Program) ([]sign.Signer, error) {
	var signers []sign.Signer
	for _, ref := range k.Refs {
		s, err := keyref.Load(ctx, ref, keyref.Secret{
			Ask: func() ([]byte, error) { return p.passphrase(ctx, k.passFile, ref) }, File: k.passFile,
		})
		if err != nil {
			return nil, err
		}
		signers = append(signers, s)
	}
	for _, file := range k.chains {
		chain, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if signers, err = sign.WithChain(chain, signers); err != nil {
			return nil, fmt.Errorf("load certificates %s: %w", file, err)
		}
	}
	return signers, nil
}

// Trust are the options of every command that verifies.
type Trust struct {
	Dir       string
	threshold int
	policy    string
}

// TrustOptions adds the options to a command.
func TrustOptions(f *flag.FlagSet) *Trust {
	t := &Trust{threshold: 1}
	f.StringVar(&t.Dir, "keyring", "", "`DIR` with the public keys to believe, *.pem and *.pub, and certificates of authorities")
	f.Var((*count)(&t.threshold), "threshold", "`NUMBER` of different keys that must have signed")
	f.StringVar(&t.policy, "policy", "", "policy `FILE` of a device, which says whose signatures of the keyring it takes for what")
	return t
}

// Check is an error if the options contradict each other.
func (t *Trust) Check() error {
	switch {
	case t.Dir == "" && t.threshold != 1:
		return Misuse("--threshold needs --keyring")
	case t.Dir == "" && t.policy != "":
		return Misuse("--policy needs --keyring")
	case t.policy != "" && t.threshold != 1:
		return Misuse("--threshold and --policy: the rules of the policy say how many keys must have signed")
	}
	return nil
}

// Policy loads whom to believe.
func (t *Trust) Policy() (*sign.Policy, error) {
	if err := t.Check(); err != nil {
		return nil, err
	}
	keyring, err := sign.LoadKeyring(t.Dir)
	if err != nil {
		return nil, err
	}
	if t.policy != "" {
		return sign.LoadPolicy(t.policy, keyring)
	}
	return keyring.Policy(t.threshold), nil
}

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
