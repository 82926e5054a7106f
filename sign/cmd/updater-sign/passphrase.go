// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

const (
	passphraseVariable = "UPDATERD_KEY_PASSPHRASE"
	maxPassphrase      = 4 << 10
)

// passphrase finds the passphrase of the existing key called name.
func (c *command) passphrase(file, name string) ([]byte, error) {
	if p, err := c.givenPassphrase(file); p != nil || err != nil {
		return p, err
	}
	return c.ask("passphrase of " + name + ": ")
}

// newPassphrase finds the passphrase for a new key; at a terminal it asks twice.
func (c *command) newPassphrase(file string) ([]byte, error) {
	if p, err := c.givenPassphrase(file); p != nil || err != nil {
		return p, err
	}
	first, err := c.ask("new passphrase: ")
	if err != nil {
		return nil, err
	}
	second, err := c.ask("the same again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, errors.New("the two passphrases differ")
	}
	return first, nil
}

// givenPassphrase is what needs no person; nil if there is none.
func (c *command) givenPassphrase(file string) ([]byte, error) {
	if file == "" {
		if p, given := c.getenv(passphraseVariable); given {
			return []byte(p), nil
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
func (c *command) ask(prompt string) ([]byte, error) {
	fd := int(c.stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, fmt.Errorf("no terminal to ask for the passphrase; use --passphrase-file or %s", passphraseVariable)
	}
	fmt.Fprint(c.stderr, prompt)
	p, err := term.ReadPassword(fd)
	fmt.Fprintln(c.stderr)
	if err != nil {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	return p, nil
}
