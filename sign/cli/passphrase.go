// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// PassphraseVariable is the environment variable that may hold the passphrase.
const PassphraseVariable = "UPDATERD_KEY_PASSPHRASE"

// PassphraseHelp is for the overview of a program that signs.
const PassphraseHelp = `A private KEY is a PEM file or one of

  awskms:///alias/NAME, gcpkms://projects/..., azurekms://VAULT/NAME
  hashivault://NAME, openbao://NAME
  pkcs11:token=NAME;object=LABEL?module-path=FILE
  NAME://..., by the program sigstore-kms-NAME (sigstore's plugin protocol)

It is ECDSA P-256 or Ed25519; docs/signing.md has each of them step by step. An
encrypted file gets its passphrase, and a token its PIN, from --passphrase-file
(first line), else from the variable ` + PassphraseVariable + `, else from
the terminal.
`

const maxPassphrase = 4 << 10

// passphrase finds the passphrase of the existing key called name.
func (p *Program) passphrase(ctx context.Context, file, name string) ([]byte, error) {
	if given, err := p.givenPassphrase(file); given != nil || err != nil {
		return given, err
	}
	return p.ask(ctx, "passphrase of "+name+": ")
}

// NewPassphrase finds the passphrase for a new key; at a terminal it asks twice.
func (p *Program) NewPassphrase(ctx context.Context, file string) ([]byte, error) {
	if given, err := p.givenPassphrase(file); given != nil || err != nil {
		return given, err
	}
	first, err := p.ask(ctx, "new passphrase: ")
	if err != nil {
		return nil, err
	}
	second, err := p.ask(ctx, "the same again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, errors.New("the two passphrases differ")
	}
	return first, nil
}

// givenPassphrase is what needs no person; nil if there is none.
func (p *Program) givenPassphrase(file string) ([]byte, error) {
	if file == "" {
		if text, given := p.Getenv(PassphraseVariable); given {
			return []byte(text), nil
		}
		return nil, nil
	}
	f, err := os.Open(file)
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
		return nil, fmt.Errorf("the first line of %s is empty or longer than %d bytes", file, maxPassphrase)
	}
	return line, nil
}

// ask reads from the terminal without echo. Standard output stays clean for the result.
func (p *Program) ask(ctx context.Context, prompt string) ([]byte, error) {
	fd := int(p.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("no terminal to ask for the passphrase; use --passphrase-file or %s", PassphraseVariable)
	}
	fmt.Fprint(p.Stderr, prompt)
	defer fmt.Fprintln(p.Stderr)
	type answer struct {
		text []byte
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		answered <- answer{text, err}
	}()
	select {
	case <-ctx.Done():
		// The read goes on until the program ends, but the echo must come back.
		_ = term.Restore(fd, before)
		return nil, ctx.Err()
	case a := <-answered:
		if a.err != nil {
			return nil, fmt.Errorf("read passphrase: %w", a.err)
		}
		return a.text, nil
	}
}
