// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
	"golang.org/x/term"
)

const (
	passphraseVariable = "UPDATERD_KEY_PASSPHRASE"
	maxPassphrase      = 4 << 10
)

// keyOptions are the options of every command that signs.
type keyOptions struct {
	refs     list
	passFile string
}

func (c *command) keyOptions(f *flag.FlagSet) *keyOptions {
	k := &keyOptions{}
	f.Var(&k.refs, "key", "private `KEY`, a PEM file; give it again for more signatures")
	f.StringVar(&k.passFile, "passphrase-file", "", "take the passphrase of the keys from the first line of `FILE`")
	return k
}

func (k *keyOptions) load(ctx context.Context, c *command) ([]sign.Signer, error) {
	var signers []sign.Signer
	for _, ref := range k.refs {
		s, err := sign.LoadSigner(ctx, ref, func() ([]byte, error) { return c.passphrase(k.passFile, ref) })
		if err != nil {
			return nil, err
		}
		signers = append(signers, s)
	}
	return signers, nil
}

// passphrase finds the passphrase of the key called name.
func (c *command) passphrase(file, name string) ([]byte, error) {
	if file != "" {
		return firstLine(file)
	}
	if p, given := c.getenv(passphraseVariable); given {
		return []byte(p), nil
	}
	fd := int(c.stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, fmt.Errorf("no terminal to ask for the passphrase; use --passphrase-file or %s", passphraseVariable)
	}
	fmt.Fprintf(c.stderr, "passphrase of %s: ", name)
	p, err := term.ReadPassword(fd)
	fmt.Fprintln(c.stderr)
	if err != nil {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	return p, nil
}

func firstLine(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPassphrase+1))
	if err != nil {
		return nil, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 || len(line) > maxPassphrase {
		return nil, fmt.Errorf("the first line of %s is empty or longer than %d bytes", path, maxPassphrase)
	}
	return line, nil
}

// trustOptions are the options of every command that verifies.
type trustOptions struct {
	dir       string
	threshold int
}

func (c *command) trustOptions(f *flag.FlagSet) *trustOptions {
	t := &trustOptions{}
	f.StringVar(&t.dir, "keyring", "", "`DIR` with the public keys to believe, *.pem and *.pub")
	f.IntVar(&t.threshold, "threshold", 1, "`NUMBER` of different keys that must have signed")
	return t
}

func (t *trustOptions) open(path string) (*bundle.File, error) {
	keyring, err := sign.LoadKeyring(t.dir)
	if err != nil {
		return nil, err
	}
	return bundle.Open(path, keyring, t.threshold)
}
